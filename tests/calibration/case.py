"""A case of the bench: a training, what is wrong with it, and what may be said of it first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Group = Literal["healthy", "sick", "mixture"]
PartName = Literal["sealed", "tuning"]
Optimize = Callable[[nn.Module], Optimizer]
Loop = Callable[[nn.Module, Optimizer, Callable[[], Any], int], Iterator[float]]


@dataclass(frozen=True)
class Case:
    """One training.

    `causes` holds a set of codes for each planted fault: those accepted for the first finding,
    written down before the case was judged. `loop` replaces the plain training loop and yields
    the loss of each step; `in_loop` tells that the fault is in the loop, where `check` does not
    look. `why` says in one line, by mode or "" for all, why a case is still judged wrongly.
    """

    name: str
    group: Group
    model: Callable[[], nn.Module]
    batch: Callable[[], Any]
    loss: Callable[[Any, Any], Tensor] | None = None
    optimizer: Optimize | None = None
    step: Callable[[nn.Module, Any], Tensor] | None = None
    precision: str | None = None
    loop: Loop | None = None
    in_loop: bool = False
    causes: tuple[frozenset[str], ...] = ()
    fault: str = ""
    learns: bool = True
    part: PartName = "sealed"
    clip: float = 0.0
    accumulate: int = 1
    schedule: Callable[[Optimizer], Any] | None = None
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> frozenset[str]:
        """Return every accepted code."""
        return frozenset().union(*self.causes)


class Bench:
    """The cases of one file, in order."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def healthy(self, function: Callable[[], Any] | None = None, **facts: Any) -> Any:
        """Add what the decorated function returns; its name is the case's."""
        if function is None:
            return lambda f: self.healthy(f, **facts)
        name = function.__name__.replace("_", "-")
        self.cases.append(Case(name, "healthy", **function(), **facts))
        return function

    def sick(
        self, name: str, fault: str, causes: str, model: Any, batch: Any, loss: Any = None,
        optimizer: Any = None, **others: Any,
    ) -> None:  # fmt: skip
        """Add a case with one fault; `causes` are codes separated by spaces."""
        accepted = (frozenset(causes.split()),)
        self.cases.append(
            Case(name, "sick", model, batch, loss, optimizer, causes=accepted, fault=fault,
                 **others)
        )  # fmt: skip

    def mixture(
        self, name: str, first: str, second: str, model: Any, batch: Any, loss: Any = None,
        optimizer: Any = None, **others: Any,
    ) -> None:  # fmt: skip
        """Add a case with two faults that have nothing to do with each other."""
        accepted = (frozenset(first.split()), frozenset(second.split()))
        self.cases.append(
            Case(name, "mixture", model, batch, loss, optimizer, causes=accepted, fault=name,
                 **others)
        )  # fmt: skip


def adam(lr: float = 1e-3, **options: Any) -> Optimize:
    """Return a builder of Adam over what is trained."""
    return lambda model: torch.optim.Adam(_trained(model), lr, **options)


def adamw(lr: float = 1e-3, **options: Any) -> Optimize:
    """Return a builder of AdamW over what is trained."""
    return lambda model: torch.optim.AdamW(_trained(model), lr, **options)


def sgd(lr: float = 0.1, **options: Any) -> Optimize:
    """Return a builder of stochastic gradient descent over what is trained."""
    return lambda model: torch.optim.SGD(_trained(model), lr, **options)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]
