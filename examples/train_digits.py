"""A training script as people write them; gradlint watches it without a change.

gradlint run examples/train_digits.py                      # healthy
gradlint run examples/train_digits.py --lr 3               # GL401 steps that replace the weights
gradlint run examples/train_digits.py --accumulate         # GL704 gradients nobody clears
gradlint run examples/train_digits.py --train-head-only    # GL702 no optimizer holds the trunk
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser(description="Handwritten digits")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--accumulate", action="store_true", help="never clear gradients")
    parser.add_argument("--train-head-only", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    labels = torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)

    trunk = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    head = nn.Linear(128, 10)
    model = nn.Sequential(trunk, head)
    trained = head.parameters() if args.train_head_only else model.parameters()
    optimizer = torch.optim.Adam(trained, lr=args.lr)

    for epoch in range(args.epochs):
        for x, y in loader:
            if not args.accumulate:
                optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
