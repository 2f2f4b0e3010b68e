"""What a recipe is: a program with one planted fault, and the codes that name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

Optimize = Callable[[nn.Module], Optimizer]


@dataclass(frozen=True)
class Recipe:
    """A broken program.

    `causes` holds the codes accepted for the first finding: the planted fault, and others
    only where they say the same thing in other words. It is written down before the
    program is run; `because` gives the reason, and the reason of any later change.
    """

    id: str
    causes: frozenset[str]
    model: Callable[[], nn.Module]
    data: Callable[[], Any]
    loss: Callable[[Any, Any], Tensor] | None = None
    optimizer: Optimize | None = None
    step: Callable[[nn.Module, Any], Tensor] | None = None
    precision: str | None = None
    because: str = ""
    missed: str = ""
    """Why gradlint does not name this fault yet; empty where it does."""
    slow: bool = False


RECIPES: list[Recipe] = []
"""All recipes, in the order of the files that define them."""


def sick(
    name: str,
    causes: str,
    model: Callable[[], nn.Module],
    data: Callable[[], Any],
    loss: Callable[[Any, Any], Tensor] | None = functional.cross_entropy,
    optimizer: Optimize | None = None,
    **others: Any,
) -> None:
    """Add a recipe; `causes` are codes separated by spaces."""
    RECIPES.append(Recipe(name, frozenset(causes.split()), model, data, loss, optimizer, **others))


def adam(lr: float = 1e-3, **options: Any) -> Optimize:
    """Return a builder of Adam."""
    return lambda model: torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad] or model.parameters(), lr, **options
    )


def sgd(lr: float = 0.1, **options: Any) -> Optimize:
    """Return a builder of stochastic gradient descent."""
    return lambda model: torch.optim.SGD(model.parameters(), lr, **options)
