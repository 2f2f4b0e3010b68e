"""He initialization against N(0, 1) weights, at four depths (an exercise of many textbooks).

gradlint check examples/he_against_normal.py:normal_5     # explodes: each layer is 7 times larger
gradlint check examples/he_against_normal.py:normal_50    # explodes
gradlint check examples/he_against_normal.py:he_5         # healthy
gradlint check examples/he_against_normal.py:he_50        # healthy
"""

import torch
from torch import nn

UNITS, CLASSES = 100, 10


def network(depth, initialize):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(UNITS, UNITS), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(UNITS, CLASSES))
    for layer in model[:-1]:
        if isinstance(layer, nn.Linear):
            initialize(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def he(weight):
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def normal_5():
    return network(5, nn.init.normal_)


def normal_10():
    return network(10, nn.init.normal_)


def normal_20():
    return network(20, nn.init.normal_)


def normal_50():
    return network(50, nn.init.normal_)


def he_5():
    return network(5, he)


def he_10():
    return network(10, he)


def he_20():
    return network(20, he)


def he_50():
    return network(50, he)


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(CLASSES, UNITS, generator=generator)
    labels = torch.randint(CLASSES, (128,))
    return centers[labels] + torch.randn(128, UNITS), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=1e-2)
