"""A target out of live objects: what the Python API checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradlint.errors import UsageError
from gradlint.target import losses, optimizers
from gradlint.target.batches import Batch, Source, check, prepare, split, whole
from gradlint.target.settle import Settled, settle
from gradlint.target.signatures import target_keyword
from gradlint.target.target import Target


def from_objects(
    model: Any,
    batch: Any,
    loss_fn: Any = None,
    optimizer: Any = None,
    *,
    training_step: Callable[[nn.Module, Any], Any] | None = None,
    seed: int = 0,
) -> Target:
    """Return the target made of a model, a batch, a loss and an optimizer.

    `model` is a module, or a class or function that builds one. `batch` is a tensor,
    ``(inputs, targets)``, a mapping, a `Batch`, a list of batches, a loader, a data set or a
    function that returns one of them. `loss_fn` is a module, a function of outputs and
    targets, or a name; without it the model's own loss is used, else one is chosen.
    `optimizer` is an instance, or a function of the model.

    Raises:
        UsageError: If one of them is of another kind, or the batch is empty.
        TargetError: If a loss has to be found and the model raises.
    """
    given = isinstance(model, nn.Module)
    if not given and not callable(model):
        raise UsageError(
            f"expected model to be an nn.Module or a function that builds one, got "
            f"{type(model).__name__}"
        )
    build = (lambda: model) if given else model
    name = type(model).__name__ if given else getattr(model, "__name__", "model")
    loss = losses.given(loss_fn) if loss_fn is not None else None
    if loss_fn is not None and loss is None:
        raise UsageError(
            f"expected loss_fn to be a function of outputs and targets, got "
            f"{type(loss_fn).__name__}"
        )
    source = Source(batch)
    sample = model if given else build()
    ready = batches_of(source, loss, training_step)
    first = ready(sample, seed)
    settled = settle(sample, first[0], loss_fn=loss, training_step=training_step, seed=seed)
    instance = optimizer if isinstance(optimizer, Optimizer) else None
    builder = None
    if optimizer is not None and instance is None:
        builder = optimizers.from_function(optimizer, "optimizer")
    return Target(
        path="",
        object=name,
        build=build,
        rebuildable=not given,
        batches=completed(ready, settled),
        loss_fn=settled.convention.loss_fn,
        training_step=training_step,
        build_optimizer=builder,
        optimizer=instance,
        synthesized=bool(settled.makers),
        call=settled.convention,
        assumed=dict(settled.assumed),
    )


def batches_of(
    source: Source,
    loss_fn: Callable[[Any, Any], Any] | None,
    training_step: Callable[[nn.Module, Any], Any] | None,
    name: str = "batch",
) -> Callable[[nn.Module, int], list[Batch]]:
    """Return the function of model and seed that reads `source`, checked and on the device."""

    def ready(model: nn.Module, seed: int) -> list[Batch]:
        raws = source(seed)
        if not raws:
            raise UsageError(
                f"expected {name} to hold at least one batch, got none; give (inputs, targets)"
            )
        if training_step is not None:
            return [prepare(check(whole(raw), name), model) for raw in raws]
        takes_targets = loss_fn is not None or target_keyword(model) is not None
        split_raws = [split(raw, model, takes_targets=takes_targets) for raw in raws]
        return [prepare(check(each, name), model) for each in split_raws]

    return ready


def completed(
    ready: Callable[[nn.Module, int], list[Batch]], settled: Settled
) -> Callable[[nn.Module, int], list[Batch]]:
    """Return `ready` with made-up targets, where the user gave none."""
    if not settled.makers:
        return ready

    def complete(model: nn.Module, seed: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        return [settled.complete(batch, generator) for batch in ready(model, seed)]

    return complete
