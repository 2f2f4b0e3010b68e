"""Layers in a plain Python list: the model runs, `parameters()` does not know them, and the
optimizer never moves them.

    gradlint check examples/unregistered_layers.py:sick       # GL709 unregistered-module
    gradlint check examples/unregistered_layers.py:healthy
"""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, container):
        super().__init__()
        self.layers = container(nn.Linear(20, 20) for _ in range(3))
        self.head = nn.Linear(20, 4)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


def sick():
    return Net(list)


def healthy():
    return Net(nn.ModuleList)


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
