"""Plan, Run: how one observed run of `check` is made, and what it gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gradlint.errors import TargetError, UsageError
from gradlint.finding import Source
from gradlint.target.optimizers import belongs
from gradlint.target.target import Target
from gradlint.target.trial import copied_together, loss_module, with_own_loss
from gradlint.trace import Trace

PROBE_LEARNING_RATE = 1e-3
"""Adam's default (Kingma & Ba 2015, section 2): used only where the user gave no optimizer."""


@dataclass
class Plan:
    """How one run is made."""

    steps: int = 40
    seconds: float | None = 15.0
    precision: str | None = None
    progress: Callable[[str, float], None] | None = None
    sources: Callable[[nn.Module], Mapping[str, Source]] | None = None
    pretrained: bool = False

    def tell(self, what: str, share: float) -> None:
        """Report progress, in ``[0, 1]``."""
        if self.progress is not None:
            self.progress(what, share)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context the forward runs in."""
        if self.precision is None:
            return nullcontext()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return torch.autocast(device.type, dtype=dtype)


@dataclass
class TargetRaisedError(Exception):
    """The target raised; what was observed until then is kept."""

    phase: str
    error: TargetError


@dataclass
class Run:
    """What one run gave: its trace and, if the target raised, what."""

    trace: Trace
    error: TargetError | None = None


def instantiate(
    target: Target, device: str | None
) -> tuple[nn.Module, torch.optim.Optimizer | None]:
    """Return a model and its optimizer that gradlint may train: fresh, or a copy of the given.

    Raises:
        UsageError: If a given model cannot be copied.
    """
    return prepared(target, device)[:2]


def prepared(
    target: Target, device: str | None
) -> tuple[nn.Module, torch.optim.Optimizer | None, Target]:
    """Return model and optimizer as `instantiate` does, and `target` with a loss of their own.

    Raises:
        UsageError: If a given model cannot be copied.
    """
    model, optimizer, call = target.build(), None, target.call
    if target.rebuildable:
        call = with_own_loss(call)
    else:
        try:
            model, optimizer, call = copied_together(model, target.optimizer, call)
        except Exception as error:
            raise UsageError(
                f"expected {target.object} to be a model that can be copied, got {error}; name a "
                "function or a class that builds it"
            ) from error
        for parameter in model.parameters():
            parameter.grad = None
    if device is not None:
        model = model.to(device)
    if optimizer is None and target.build_optimizer is not None:
        optimizer = target.build_optimizer(model)
        if _trains_the_loss(optimizer, target.call):
            call = target.call
    return model.train(), optimizer, replace(target, call=call)


def _trains_the_loss(optimizer: torch.optim.Optimizer, call: Any) -> bool:
    """Whether an optimizer that was built holds parameters of the given loss itself."""
    loss = loss_module(getattr(call, "loss_fn", None))
    return loss is not None and belongs(optimizer, loss)


def probe_optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer | None:
    """Return gradlint's own optimizer, for where the user gave none; None without parameters."""
    return torch.optim.Adam(parameters, lr=PROBE_LEARNING_RATE) if parameters else None
