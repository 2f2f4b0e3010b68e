"""A ReLU behind the last layer of a regression whose targets are negative half of the time.

gradlint check examples/bounded_output.py:sick       # GL603 bounded-output
gradlint check examples/bounded_output.py:healthy
"""

import torch
from torch import nn


def sick():
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1), nn.ReLU())


def healthy():
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))


def get_batch():
    x = torch.randn(128, 10)
    return x, x.sum(1, keepdim=True) / 10**0.5


loss_fn = nn.MSELoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
