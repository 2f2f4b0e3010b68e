"""Ten sigmoid layers: every derivative is at most 0.25, so the gradient dies on its way down.

    gradlint check examples/deep_sigmoid.py:sick       # GL301 vanishing-gradient
    gradlint check examples/deep_sigmoid.py:healthy

The table of 0.25^L behind it: after 1, 2, 5, 10 layers 0.25, 0.0625, 9.8e-04, 9.5e-07 is left,
before the weights take their share.
"""

import torch
from torch import nn

WIDTH, CLASSES = 64, 4


def sick():
    layers = []
    for _ in range(10):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def healthy():
    layers = []
    for _ in range(10):
        linear = nn.Linear(WIDTH, WIDTH)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(CLASSES, WIDTH, generator=generator)
    labels = torch.randint(CLASSES, (128,))
    return centers[labels] + torch.randn(128, WIDTH), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
