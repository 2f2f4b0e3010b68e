"""What a file says about its batch, loss, training step and optimizer: names and their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlint.errors import TargetNotFoundError, UsageError
from gradlint.target import losses, optimizers
from gradlint.target.batches import callable_without_arguments
from gradlint.target.models import Model
from gradlint.target.module_file import Imported
from gradlint.target.signatures import takes, takes_model

BATCHES = (
    "example_batch",
    "example_inputs",
    "get_batch",
    "batch",
    "train_loader",
    "dataloader",
    "loader",
)
LOSSES = ("loss_fn", "criterion", "loss", "compute_loss")
OPTIMIZERS = ("optimizer", "build_optimizer", "configure_optimizers")


@dataclass(frozen=True)
class Named:
    """A value and the name it was found under."""

    name: str
    value: Any


def find_batch(target: Imported, wanted: str | None = None) -> tuple[Named | None, str]:
    """Return the first usable batch, loader or function, and what to say of one passed over.

    A function that needs arguments nobody can guess is passed over, and so is a name that
    holds something else (``batch = 32``).

    Raises:
        UsageError: If the settings name a batch, `wanted`, that is not in the file.
    """
    if wanted is not None:
        return Named(wanted, _setting(target, wanted, "batch")), ""
    note = ""
    for name in BATCHES:
        value = vars(target.module).get(name)
        if value is None or isinstance(value, (ModuleType, type, int, float, str, torch.Size)):
            continue
        if callable(value) and not isinstance(value, (Tensor, nn.Module)):
            if not callable_without_arguments(value):
                note = note or f"{name} needs arguments and was not used"
                continue
            return Named(name, value), note
        if hasattr(value, "__iter__") or hasattr(value, "__getitem__"):
            return Named(name, value), note
    return None, note


def _setting(target: Imported, name: str, what: str) -> Any:
    value = vars(target.module).get(name)
    if value is None:
        raise UsageError(
            f"expected {what} = {name!r} of the settings to be defined in {target.path}, found "
            "nothing of that name"
        )
    return value


def find_step(target: Imported, wanted: str | None = None) -> Named | None:
    """Return ``step(model, batch)`` out of `training_step`, or of a `compute_loss` of that form.

    Raises:
        UsageError: If `training_step` takes something else, or the settings name one,
            `wanted`, that is not in the file.
    """
    if wanted is not None:
        return Named(wanted, _step(_setting(target, wanted, "training-step")))
    step = vars(target.module).get("training_step")
    if callable(step) and not isinstance(step, type):
        known = takes(step)
        if known is not None and len(known.required) < 2 and not known.any_positional:
            raise UsageError(
                f"expected training_step(model, batch) in {target.path}, it takes "
                f"({', '.join(known.positional)}); gradlint trains a copy, so the model has to be "
                "an argument"
            )
        return Named("training_step", _step(step))
    for name in ("compute_loss", "loss_fn"):
        value = vars(target.module).get(name)
        if callable(value) and not isinstance(value, (type, nn.Module)) and takes_model(value) > 1:
            return Named(name, _step(value))
    return None


def _step(function: Callable[..., Any]) -> Callable[[nn.Module, Any], Any]:
    """`function` as ``step(model, batch)``: a batch's number is 0, several arguments its parts."""
    known = takes(function)
    names = known.required if known is not None else ()
    if len(names) < 3:
        return function
    if len(names) == 3 and ("idx" in names[2] or names[2] in ("i", "step", "batch_nb")):
        return lambda model, batch: function(model, batch, 0)

    def unpacked(model: nn.Module, batch: Any) -> Any:
        return (
            function(model, *batch) if isinstance(batch, (tuple, list)) else function(model, batch)
        )

    return unpacked


def method_step(model: nn.Module) -> bool:
    """Whether the model has a training step of its own, as a LightningModule has."""
    step = getattr(type(model), "training_step", None)
    return callable(step) and not _is_base(step)


def call_method_step(model: nn.Module, batch: Any) -> Any:
    """Return ``model.training_step(batch, 0)``, with as many arguments as it takes."""
    step: Callable[..., Any] = model.training_step  # type: ignore[assignment]
    known = takes(step)
    if known is not None and not known.any_positional and len(known.positional) < 2:
        return step(batch)
    return step(batch, 0)


def method_loader(model: nn.Module) -> Callable[[], Any] | None:
    """Return the model's own `train_dataloader`, if its class defines one."""
    method = getattr(type(model), "train_dataloader", None)
    if not callable(method) or _is_base(method):
        return None
    return model.train_dataloader  # type: ignore[return-value]


def method_optimizers(model: nn.Module) -> Callable[[nn.Module], Optimizer] | None:
    """Return a builder that calls the model's own `configure_optimizers`, if it has one."""
    method = getattr(type(model), "configure_optimizers", None)
    if not callable(method) or _is_base(method) or takes(model.configure_optimizers) is None:  # type: ignore[arg-type]
        return None
    if takes(model.configure_optimizers).required:  # type: ignore[union-attr, arg-type]
        return None

    def configure_optimizers(model: nn.Module) -> Any:
        return model.configure_optimizers()  # type: ignore[operator]

    return optimizers.from_function(configure_optimizers, "configure_optimizers")


def _is_base(method: Any) -> bool:
    home = str(getattr(method, "__module__", ""))
    return home.startswith(("lightning.", "pytorch_lightning.", "lightning_fabric."))


def find_loss(target: Imported, wanted: str | None) -> Named | None:
    """Return the loss: the wanted one (of the file, else of torch), else one by a usual name.

    Raises:
        UsageError: If the wanted one is unknown.
    """
    if wanted is not None:
        value = vars(target.module).get(wanted)
        found = losses.given(value) if value is not None else None
        return Named(wanted, found if found is not None else losses.by_name(wanted))
    for name in LOSSES:
        value = vars(target.module).get(name)
        if value is None or isinstance(value, (ModuleType, float, int)):
            continue
        if name == "loss" and isinstance(value, type):
            continue
        found = losses.given(value)
        if found is not None:
            return Named(name, found)
    return None


@dataclass(frozen=True)
class FoundOptimizer:
    """An optimizer: an instance on the given model, or a builder; and what to say of it."""

    builder: optimizers.Builder | None = None
    instance: Optimizer | None = None
    said: str = ""


def find_optimizer(
    target: Imported, model: Model, wanted: str | None, lr: float | None
) -> FoundOptimizer:
    """Return the optimizer: the wanted one (of the file, else of torch), else by a usual name.

    A learning rate alone is AdamW's. An instance that holds another model's parameters,
    while the model is built anew, stands for one of its class and options.

    Raises:
        UsageError: If the wanted one is unknown, or a function needs other arguments.
    """
    names = (wanted,) if wanted is not None else OPTIMIZERS
    for name in names:
        value = vars(target.module).get(name)
        if value is None or isinstance(value, (ModuleType, str)):
            continue
        if isinstance(value, Optimizer):
            return _instance(value, name, model, lr)
        if callable(value):
            build = optimizers.with_rate(optimizers.from_function(value, name), lr)
            return FoundOptimizer(build, said=name + _rate(lr))
    if wanted is not None:
        return FoundOptimizer(optimizers.by_name(wanted, lr), said=wanted + _rate(lr))
    own = method_optimizers(model.sample)
    if own is not None:
        said = "the model's configure_optimizers" + _rate(lr)
        return FoundOptimizer(optimizers.with_rate(own, lr), said=said)
    if lr is not None:
        return FoundOptimizer(optimizers.by_name("AdamW", lr), said="AdamW" + _rate(lr))
    return FoundOptimizer()


def _instance(optimizer: Optimizer, name: str, model: Model, lr: float | None) -> FoundOptimizer:
    if lr is not None:
        optimizers.set_rate(optimizer, lr)
    said = f"{name}: {optimizers.describe(optimizer)}"
    if not model.rebuildable:
        return FoundOptimizer(instance=optimizer, said=said)
    try:
        return FoundOptimizer(optimizers.again(optimizer, name), said=f"{said}, on a new model")
    except UsageError as error:
        raise TargetNotFoundError(str(error)) from error


def _rate(lr: float | None) -> str:
    return "" if lr is None else f" lr {lr:g}"
