"""A target out of live objects: what the Python API checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradlint.errors import UsageError
from gradlint.target import losses, names, optimizers
from gradlint.target.assembled import Parts, assemble
from gradlint.target.batches import Source
from gradlint.target.models import Model, uncompiled, with_parameters
from gradlint.target.signatures import required
from gradlint.target.target import Target
from gradlint.target.user_code import quietly


def from_objects(
    model: Any,
    batch: Any = None,
    loss_fn: Any = None,
    optimizer: Any = None,
    *,
    training_step: Callable[[nn.Module, Any], Any] | None = None,
    seed: int = 0,
) -> Target:
    """Return the target made of a model, a batch, a loss and an optimizer.

    Args:
        model: A module, or a class or function without arguments that builds one.
        batch: A tensor, ``(inputs, targets)``, a mapping, a `Batch`, a list of batches, a
            loader, a data set, or a function that returns one of them; None makes one up.
        loss_fn: A module, a function of outputs and targets, or a name; None for the
            model's own loss, or one chosen by outputs and targets.
        optimizer: An instance that holds the model's parameters, or a function of the model.
        training_step: ``training_step(model, batch)``, which replaces `loss_fn`.
        seed: Seed of what is tried here.

    Raises:
        UsageError: If one of them is of another kind, or the batch is empty.
        TargetError: If a batch or a loss has to be found and the model raises.
    """
    found = _model(model, seed)
    loss = losses.given(loss_fn) if loss_fn is not None else None
    if loss_fn is not None and loss is None:
        raise UsageError(
            "expected loss_fn to be a function of outputs and targets, got "
            f"{type(loss_fn).__name__}"
        )
    instance = optimizer if isinstance(optimizer, Optimizer) else None
    builder = None
    if optimizer is not None and instance is None:
        if not callable(optimizer):
            raise UsageError(
                "expected optimizer to be an instance, or a function that builds one, got "
                f"{type(optimizer).__name__}"
            )
        builder = optimizers.from_function(optimizer, "optimizer")
    parts = Parts(
        model=found,
        source=None if batch is None else Source(batch),
        loss=names.Named(losses.name_of(loss_fn), loss) if loss is not None else None,
        step=None if training_step is None else names.Named("training_step", training_step),
        optimizer=names.FoundOptimizer(builder, instance),
    )
    return assemble(parts, path="", seed=seed)


def _model(model: Any, seed: int) -> Model:
    if isinstance(model, nn.Module):
        model = uncompiled(model)
        name = type(model).__name__
        return Model(name, lambda: model, False, with_parameters(model, name))
    if not callable(model):
        raise UsageError(
            "expected model to be an nn.Module or a function that builds one, got "
            f"{type(model).__name__}"
        )
    name = getattr(model, "__name__", "model")
    if needed := required(model):
        raise UsageError(
            f"expected {name} to be called without arguments, it needs {', '.join(needed)}; give "
            f"lambda: {name}(…), or an instance"
        )
    with quietly(seed):
        sample = model()
    if not isinstance(sample, nn.Module):
        raise UsageError(f"expected {name}() to return an nn.Module, got {type(sample).__name__}")
    return Model(name, lambda: uncompiled(model()), True, with_parameters(uncompiled(sample), name))
