"""Attention that normalizes over the batch instead of the positions: samples see each other.

gradlint check examples/softmax_axis.py:sick       # GL113 softmax-axis
gradlint check examples/softmax_axis.py:healthy
"""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.embed = nn.Linear(5, 32)
        self.score = nn.Linear(32, 1)
        self.head = nn.Linear(32, 4)
        self.dim = dim

    def forward(self, x):
        tokens = torch.relu(self.embed(x.reshape(len(x), 4, 5)))  # (N, T, U)
        weights = torch.softmax(self.score(tokens), dim=self.dim)
        return self.head((weights * tokens).sum(1))


def sick():
    return Net(dim=0)


def healthy():
    return Net(dim=1)


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
