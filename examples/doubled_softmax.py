"""Softmax in front of CrossEntropyLoss, which applies its own: the gradient shrinks and the
loss cannot fall below 0.74 for four classes.

    gradlint check examples/doubled_softmax.py:sick       # GL601 doubled-softmax
    gradlint check examples/doubled_softmax.py:healthy
"""

import torch
from torch import nn


def sick():
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4), nn.Softmax(dim=1))


def healthy():
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
