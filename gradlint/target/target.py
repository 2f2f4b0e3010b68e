"""Target: everything `check` needs to train a model, however it was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gradlint.target.batches import Batch

Loss = Callable[[Any, Any], Any]
"""``loss_fn(outputs, targets)``; what comes back is checked to be a scalar tensor."""


@dataclass
class Target:
    """A model with its batches, loss and optimizer, and what was assumed about them.

    `build` gives a fresh model on each call if `rebuildable`, else the one given instance:
    the caller copies it, together with `optimizer`, which then holds its parameters.
    `batches(model, seed)` gives up to eight batches on the model's device; the same seed
    gives the same batches. `call(model, batch)` runs forward and loss by whatever
    convention was found and returns ``(loss, outputs, targets)``; it raises `TargetError`
    where the user's code raises. `path` is the target as the user wrote it, `object` the
    name that was used, `files` are those in which the model is built.
    """

    path: str
    object: str
    build: Callable[[], nn.Module]
    rebuildable: bool
    batches: Callable[[nn.Module, int], list[Batch]]
    loss_fn: Loss | None
    training_step: Callable[[nn.Module, Any], Any] | None
    build_optimizer: Callable[[nn.Module], Optimizer] | None
    optimizer: Optimizer | None
    synthesized: bool
    call: Callable[[nn.Module, Batch], tuple[Tensor, Any, Any]]
    assumed: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
