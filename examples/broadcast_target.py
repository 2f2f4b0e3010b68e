"""Targets of shape (N,) against outputs of shape (N, 1): MSELoss broadcasts them to (N, N) and
the network learns the mean.

    gradlint check examples/broadcast_target.py:sick       # GL605 target-range
    gradlint check examples/broadcast_target.py:healthy
"""

import torch
from torch import nn


def sick():
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))


def healthy():
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))


def get_batch():
    x = torch.randn(128, 10)
    return x, x.sum(1) / 10**0.5


loss_fn = nn.MSELoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
