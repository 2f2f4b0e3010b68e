"""A `detach()` left over from debugging: the encoder runs, and never learns.

gradlint check examples/detached_encoder.py:sick       # GL701 missing-gradient
gradlint check examples/detached_encoder.py:healthy
"""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, cut):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 4)
        self.cut = cut

    def forward(self, x):
        features = self.encoder(x)
        if self.cut:
            features = features.detach()
        return self.head(features)


def sick():
    return Net(cut=True)


def healthy():
    return Net(cut=False)


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
