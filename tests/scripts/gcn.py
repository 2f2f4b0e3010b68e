"""A graph convolutional network on a graph of communities."""

import argparse
import math
import time

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.nn.parameter import Parameter

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=42, help="Random seed.")
parser.add_argument("--epochs", type=int, default=150, help="Number of epochs to train.")
parser.add_argument("--lr", type=float, default=0.01, help="Initial learning rate.")
parser.add_argument("--weight_decay", type=float, default=5e-4, help="Weight decay (L2 loss).")
parser.add_argument("--hidden", type=int, default=16, help="Number of hidden units.")
parser.add_argument("--dropout", type=float, default=0.5, help="Dropout rate.")
args = parser.parse_args()

torch.manual_seed(args.seed)


class GraphConvolution(nn.Module):
    """Simple GCN layer: adjacency x features x weight."""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.weight = Parameter(torch.empty(in_features, out_features))
        if bias:
            self.bias = Parameter(torch.empty(out_features))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1.0 / math.sqrt(self.weight.size(1))
        self.weight.data.uniform_(-stdv, stdv)
        if self.bias is not None:
            self.bias.data.uniform_(-stdv, stdv)

    def forward(self, x, adj):
        support = torch.mm(x, self.weight)
        output = torch.spmm(adj, support)
        if self.bias is not None:
            return output + self.bias
        return output


class GCN(nn.Module):
    def __init__(self, nfeat, nhid, nclass, dropout):
        super().__init__()

        self.gc1 = GraphConvolution(nfeat, nhid)
        self.gc2 = GraphConvolution(nhid, nclass)
        self.dropout = dropout

    def forward(self, x, adj):
        x = F.relu(self.gc1(x, adj))
        x = F.dropout(x, self.dropout, training=self.training)
        x = self.gc2(x, adj)
        return F.log_softmax(x, dim=1)


def load_data(nodes=600, classes=5, words=200):
    """Papers that cite within their field; bags of words, a fifth of them of the field."""
    labels = torch.randint(classes, (nodes,))
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    adj = (torch.rand(nodes, nodes) < torch.where(same, 0.02, 0.002)).float()
    adj = ((adj + adj.t() + torch.eye(nodes)) > 0).float()
    adj = adj / adj.sum(1, keepdim=True)
    topic = torch.arange(words).unsqueeze(0) % classes == labels.unsqueeze(1)
    features = (torch.rand(nodes, words) < torch.where(topic, 0.08, 0.04)).float()
    features = features / features.sum(1, keepdim=True).clamp(min=1)
    return adj, features, labels, torch.arange(140), torch.arange(200, 350), torch.arange(350, 600)


def accuracy(output, labels):
    return (output.argmax(1) == labels).double().mean()


adj, features, labels, idx_train, idx_val, idx_test = load_data()

# Model and optimizer
model = GCN(
    nfeat=features.shape[1],
    nhid=args.hidden,
    nclass=labels.max().item() + 1,
    dropout=args.dropout,
)
optimizer = optim.Adam(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)


def train(epoch):
    t = time.time()
    model.train()
    optimizer.zero_grad()
    output = model(features, adj)
    loss_train = F.nll_loss(output[idx_train], labels[idx_train])
    acc_train = accuracy(output[idx_train], labels[idx_train])
    loss_train.backward()
    optimizer.step()

    # Evaluate validation set performance separately,
    # deactivates dropout during validation run.
    model.eval()
    output = model(features, adj)

    loss_val = F.nll_loss(output[idx_val], labels[idx_val])
    acc_val = accuracy(output[idx_val], labels[idx_val])
    if epoch % 10 == 0:
        print(
            f"Epoch: {epoch + 1:04d} loss_train: {loss_train.item():.4f} "
            f"acc_train: {acc_train.item():.4f} loss_val: {loss_val.item():.4f} "
            f"acc_val: {acc_val.item():.4f} time: {time.time() - t:.4f}s"
        )


def test():
    model.eval()
    output = model(features, adj)
    loss_test = F.nll_loss(output[idx_test], labels[idx_test])
    acc_test = accuracy(output[idx_test], labels[idx_test])
    print(f"Test set results: loss= {loss_test.item():.4f} accuracy= {acc_test.item():.4f}")


# Train model
t_total = time.time()
for epoch in range(args.epochs):
    train(epoch)
print("Optimization Finished!")
print(f"Total time elapsed: {time.time() - t_total:.4f}s")

# Testing
test()
