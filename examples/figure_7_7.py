"""Fifty ReLU layers of a hundred units, weights drawn with five variances.

After figure 7.7 of Prince, "Understanding Deep Learning": inputs and weights are normal, biases
zero, the target is 0 and the loss least squares. Only a variance of 2/100 keeps the signal and
the gradient alive over the depth; below they vanish, above they explode.

    gradlint check examples/figure_7_7.py:variance_0_001    # vanishes
    gradlint check examples/figure_7_7.py:variance_0_01     # vanishes
    gradlint check examples/figure_7_7.py:variance_0_02     # healthy: He initialization
    gradlint check examples/figure_7_7.py:variance_0_1      # explodes
    gradlint check examples/figure_7_7.py:variance_1        # explodes until float32 overflows
"""

import torch
from torch import nn

UNITS, DEPTH = 100, 50


def network(variance):
    layers = []
    for _ in range(DEPTH):
        layers += [nn.Linear(UNITS, UNITS), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(UNITS, 1))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=variance**0.5)
            nn.init.zeros_(layer.bias)
    return model


def variance_0_001():
    return network(0.001)


def variance_0_01():
    return network(0.01)


def variance_0_02():
    return network(0.02)


def variance_0_1():
    return network(0.1)


def variance_1():
    return network(1.0)


def get_batch():
    return torch.randn(64, UNITS), torch.zeros(64, 1)


loss_fn = nn.MSELoss()


def build_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=1e-3)
