"""A learning rate a thousand times too high: each step is larger than the weights themselves.

gradlint check examples/learning_rate_too_high.py              # GL401 update-too-large
gradlint check examples/learning_rate_too_high.py --lr 1e-3    # healthy
"""

import torch
from torch import nn


def build_model():
    return nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )


def get_batch():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(4, 20, generator=generator)
    labels = torch.randint(4, (128,))
    return centers[labels] + torch.randn(128, 20), labels


loss_fn = nn.CrossEntropyLoss()


def build_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1.0)
