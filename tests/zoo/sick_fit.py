"""Models that cannot fit what is asked of them, whatever the optimizer does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import sick_data as data
from tests.zoo.sick_hosts import mlp
from tests.zoo.sick_recipe import adam, sgd, sick

UNFIT = "GL611"


def _generated(width: int) -> Tensor:
    return torch.randn(384, width, generator=torch.Generator().manual_seed(4))


def quadrants() -> data.Batches:
    """Points whose class is whether their coordinates have the same sign."""
    x = _generated(2)
    return data.batches(x, (x[:, 0] * x[:, 1] > 0).long())


def ranks() -> data.Batches:
    """Pairs of numbers, and which of them is the larger."""
    x = _generated(2)
    return data.batches(x, (x[:, 0] > x[:, 1]).long())


def waves() -> data.Batches:
    """A number and its cosine."""
    x = 3 * _generated(1).tanh()
    return data.batches(torch.cat([x, x], 1), torch.cos(x))


class Prepared(nn.Module):
    """A perceptron behind a step that leaves out what it would need."""

    def __init__(self, step: nn.Module, *sizes: int) -> None:
        super().__init__()
        self.step, self.body = step, mlp(*sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.step(x))


class Sorted(nn.Module):
    """Puts the features of every sample in order."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1).values


class Dealt(nn.Module):
    """Gives each sample another's features."""

    def forward(self, x: Tensor) -> Tensor:
        return x[torch.randperm(len(x))]


sick("linear-on-quadrants", UNFIT, lambda: nn.Linear(2, 2), quadrants, optimizer=adam(0.01))
sick("linear-on-a-cosine", UNFIT, lambda: nn.Linear(2, 1), waves, F.mse_loss, sgd(0.01))
sick("sorted-before-compared", UNFIT, lambda: Prepared(Sorted(), 2, 32, 2), ranks,
     optimizer=adam(0.01))  # fmt: skip
sick("samples-shuffled-in-forward", f"{UNFIT} GL608", lambda: Prepared(Dealt(), 64, 64, 10),
     data.digits, optimizer=adam(), because="samples change places: told by either")  # fmt: skip
