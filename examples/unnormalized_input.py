"""Pixels from 0 to 255 into a tanh network: every unit of the first layer is saturated.

gradlint check examples/unnormalized_input.py:sick       # GL606 unnormalized-input
gradlint check examples/unnormalized_input.py:healthy
"""

import torch
from torch import nn


def sick():
    return nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )


def healthy():
    return nn.Sequential(
        nn.BatchNorm1d(64),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, 4),
    )


def get_batch():
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randint(256, (4, 64), generator=generator).float()
    labels = torch.randint(4, (128,))
    return (prototypes[labels] + 20 * torch.randn(128, 64)).clamp(0, 255), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
