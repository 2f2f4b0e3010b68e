"""A siamese network: pictures of the same digit get close, of different ones far."""

import argparse
import random

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class PairDataset(Dataset):
    """Pairs of digits; half of them show the same one."""

    def __init__(self, images, labels):
        self.images = images
        self.labels = labels
        self.groups = [torch.where(labels == k)[0].tolist() for k in range(10)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        label = int(self.labels[index])
        same = random.random() < 0.5
        other = label if same else random.choice([k for k in range(10) if k != label])
        partner = random.choice(self.groups[other])
        return self.images[index], self.images[partner], torch.tensor(float(not same))


class SiameseNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.fc = nn.Sequential(
            nn.Linear(32 * 2 * 2, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, 16),
        )

    def forward_once(self, x):
        x = self.cnn(x)
        x = x.view(x.size(0), -1)
        return self.fc(x)

    def forward(self, first, second):
        return self.forward_once(first), self.forward_once(second)


class ContrastiveLoss(nn.Module):
    def __init__(self, margin=2.0):
        super().__init__()
        self.margin = margin

    def forward(self, output1, output2, label):
        distance = F.pairwise_distance(output1, output2)
        return torch.mean(
            (1 - label) * torch.pow(distance, 2)
            + label * torch.pow(torch.clamp(self.margin - distance, min=0.0), 2)
        )


def main():
    parser = argparse.ArgumentParser(description="Siamese network")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train_loader = DataLoader(
        PairDataset(images[:1500], labels[:1500]), shuffle=True, batch_size=args.batch_size
    )
    test_loader = DataLoader(PairDataset(images[1500:], labels[1500:]), batch_size=64)

    net = SiameseNetwork()
    criterion = ContrastiveLoss()
    optimizer = optim.Adam(net.parameters(), lr=args.lr)

    for epoch in range(args.epochs):
        net.train()
        for i, (img0, img1, label) in enumerate(train_loader):
            optimizer.zero_grad()
            output1, output2 = net(img0, img1)
            loss = criterion(output1, output2, label)
            loss.backward()
            optimizer.step()
            if i % 10 == 0:
                print(f"Epoch number {epoch}\n Current loss {loss.item()}\n")

        net.eval()
        right = total = 0
        with torch.no_grad():
            for img0, img1, label in test_loader:
                distance = F.pairwise_distance(*net(img0, img1))
                right += ((distance > 1.0).float() == label).sum().item()
                total += len(label)
        print(f"Pairs told apart: {100 * right / total:.1f}%")


if __name__ == "__main__":
    main()
