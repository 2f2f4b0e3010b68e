"""Biases so negative that no unit ever fires: a dead ReLU passes no gradient and stays dead.

gradlint check examples/dead_relu.py:sick       # GL201 dead-units
gradlint check examples/dead_relu.py:healthy
"""

import torch
from torch import nn


def network(bias):
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    nn.init.constant_(model[2].bias, bias)
    return model


def sick():
    return network(-20.0)


def healthy():
    return network(0.0)


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
