"""The optimizer that was given: by name, as an instance, as a function of any signature."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradlint.errors import TargetNotFoundError, UsageError
from gradlint.target.signatures import required
from gradlint.target.user_code import say, where

Builder = Callable[[nn.Module], Optimizer]


def kinds() -> Mapping[str, type[Optimizer]]:
    """Optimizers of torch.optim by their lower-case name."""
    found = vars(torch.optim).values()
    return {
        kind.__name__.lower(): kind
        for kind in found
        if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
    }


def by_name(name: str, lr: float | None = None) -> Builder:
    """Return a builder of the optimizer of torch.optim called `name`, in any case.

    Raises:
        UsageError: If there is none; a close name is suggested.
    """
    known = kinds()
    plain = name.lower().removeprefix("torch.").removeprefix("optim.")
    if plain not in known:
        close = difflib.get_close_matches(plain, known, n=1, cutoff=0.5)
        hint = f"did you mean {known[close[0]].__name__!r}?" if close else "for example AdamW"
        raise UsageError(
            f"expected --optimizer to name an optimizer of torch.optim, got {name!r}; {hint}"
        )
    kind, options = known[plain], ({} if lr is None else {"lr": lr})
    return lambda model: kind(trainable(model), **options)  # type: ignore[arg-type]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters an optimizer by name gets: those that train, else all, as it takes no none."""
    found = [p for p in model.parameters() if p.requires_grad]
    return found or list(model.parameters())


def with_rate(build: Builder, lr: float | None) -> Builder:
    """Return `build` with every group's learning rate set to `lr`, if one is given."""
    if lr is None:
        return build

    def rebuilt(model: nn.Module) -> Optimizer:
        optimizer = build(model)
        set_rate(optimizer, lr)
        return optimizer

    return rebuilt


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def from_function(function: Callable[..., Any], name: str) -> Builder:
    """Return a builder out of a function of the model, of its parameters, or of nothing.

    Raises:
        UsageError: If the function needs more than that.
    """
    needed = required(function)
    if len(needed) > 1:
        raise UsageError(
            f"expected {name} to take the model or its parameters, it needs "
            f"{', '.join(needed)}; give the others default values"
        )

    def build(model: nn.Module) -> Optimizer:
        try:
            with redirect_stdout(sys.stderr):
                made = _call(function, model, needed)
        except Exception as error:
            raise TargetNotFoundError(
                f"expected {name} to build an optimizer, it raised {say(error)}{where(error)}"
            ) from error
        found = first(made)
        if found is None:
            raise TargetNotFoundError(
                f"expected {name} to return an optimizer, got {type(made).__name__}; return an "
                "instance of torch.optim.Optimizer"
            )
        return found

    return build


def _call(function: Callable[..., Any], model: nn.Module, needed: tuple[str, ...]) -> Any:
    if not needed:
        return function()
    kind = isinstance(function, type) and issubclass(function, Optimizer)
    if kind or needed[0].lower().startswith(("p", "group")):
        return function(model.parameters())
    return function(model)


def first(value: Any) -> Optimizer | None:
    """Return the first optimizer in what a function returned, Lightning's forms included."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, Mapping):
        return first(value.get("optimizer"))
    if isinstance(value, (tuple, list)):
        return next((found for entry in value if (found := first(entry)) is not None), None)
    return None


def belongs(optimizer: Optimizer, model: nn.Module) -> bool:
    """Whether `optimizer` holds any parameter of `model`."""
    own = {id(p) for p in model.parameters()}
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def again(optimizer: Optimizer, name: str) -> Builder:
    """Return a builder of an optimizer like `optimizer` for a model built anew.

    Raises:
        UsageError: If its groups differ, so that a single set of options cannot stand for it.
    """
    kind, options = type(optimizer), dict(optimizer.defaults)
    if len(optimizer.param_groups) > 1:
        raise UsageError(
            f"expected {name} to be an optimizer of the model that is built, it has "
            f"{len(optimizer.param_groups)} groups and holds other parameters; define "
            "build_optimizer(model)"
        )

    def build(model: nn.Module) -> Optimizer:
        wanted = required(kind)
        known = {k: v for k, v in options.items() if k not in wanted}
        try:
            return kind(model.parameters(), **known)
        except TypeError:
            return kind(model.parameters(), lr=options.get("lr", 1e-3))  # type: ignore[call-arg]

    return build


def describe(optimizer: Optimizer) -> str:
    """Class and learning rates of an optimizer."""
    rates = dict.fromkeys(f"{float(g['lr']):g}" for g in optimizer.param_groups if "lr" in g)
    return (
        f"{type(optimizer).__name__} lr {', '.join(rates)}" if rates else type(optimizer).__name__
    )
