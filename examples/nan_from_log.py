"""A logarithm of a ReLU: it meets an exact zero in the first batch.

gradlint check examples/nan_from_log.py:sick       # GL501 non-finite
gradlint check examples/nan_from_log.py:healthy
"""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, floor):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
        self.floor = floor

    def forward(self, x):
        return torch.log(torch.relu(self.body(x)) + self.floor)


def sick():
    return Net(floor=0.0)


def healthy():
    return Net(floor=1.0)


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
