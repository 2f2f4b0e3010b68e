"""A layer set to a constant: all its units compute the same, get the same gradient and stay
one unit for ever.

    gradlint check examples/symmetric_units.py:sick       # GL102 symmetric-units
    gradlint check examples/symmetric_units.py:healthy
"""

import torch
from torch import nn


def sick():
    model = healthy()
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
    return model


def healthy():
    return nn.Sequential(
        nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
