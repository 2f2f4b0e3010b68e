"""Does a custom autograd.Function slope where its backward says so? Central differences."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from gradlint.target.trial import copied
from gradlint.target.user_code import is_users

STEP = 1e-5
"""Half of the difference: what it errs by, and what rounding adds, is below 1e-9 in float64."""

NOTHING = 1e-6
"""Slope, against the steepest, from which on an entry counts as sloped."""

MAX_ENTRIES = 1 << 16
MAX_FUNCTIONS = 8


def custom_derivatives(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], batch: Any
) -> Mapping[str, Any] | None:
    """Compare the backward of functions of the user's own with differences, on a copy of `model`.

    Those are compared that change one tensor entry by entry, always in the same way, whose
    slope is not the same everywhere, and whose backward is linear in what it is given.

    Args:
        model: The model; unchanged.
        run: Calls a model on a batch, always with the same random state.
        batch: A batch.

    Returns:
        By the function's name, ``sloped`` (entries at which it rises or falls), ``against``
        (those of them at which backward has the other sign or nothing, whatever the sign of
        all) and ``flat`` (entries at which it does neither and backward passes something);
        None where there is none to compare.
    """
    calls: dict[type[Function], tuple[Any, ...]] = {}
    twin = copied(model, model)
    with torch.enable_grad(), _recording(calls):
        run(twin, batch)
    found = {}
    for function, args in list(calls.items())[:MAX_FUNCTIONS]:
        compared = _compared(function, args)
        if compared is not None:
            found[function.__name__] = compared
    return found or None


@contextmanager
def _recording(calls: dict[type[Function], tuple[Any, ...]]) -> Iterator[None]:
    """Keep the arguments of each user's function at its first call."""
    own = Function.__dict__["apply"]
    apply = own.__func__

    def recorded(cls: type[Function], *args: Any, **options: Any) -> Any:
        if cls not in calls and not options and _is_users(cls):
            calls[cls] = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)
        return apply(cls, *args, **options)

    Function.apply = classmethod(recorded)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Function.apply = own  # type: ignore[method-assign]


def _is_users(function: type[Function]) -> bool:
    code = getattr(inspect.unwrap(function.forward), "__code__", None)
    file = "" if code is None else str(code.co_filename)
    return file.startswith("<") or is_users(file)


def _compared(function: type[Function], args: tuple[Any, ...]) -> Mapping[str, int] | None:
    tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.is_floating_point()]
    if len(tensors) != 1 or args[tensors[0]].numel() > MAX_ENTRIES:
        return None
    place = tensors[0]
    x = args[place].to(torch.float64)

    def call(value: Tensor) -> Tensor:
        given = (*args[:place], value, *args[place + 1 :])
        result: Tensor = function.apply(*given)  # type: ignore[no-untyped-call]
        return result

    def slopes(cotangent: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        found: Tensor = torch.autograd.grad(call(leaf), leaf, cotangent)[0]
        return found

    try:
        with torch.no_grad():
            middle, up, down = call(x.clone()), call(x + STEP), call(x - STEP)
            half = torch.arange(x.numel()).reshape(x.shape) % 2 == 0
            partly, again = call(torch.where(half, x + STEP, x)), call(x.clone())
        told, weights = slopes(torch.ones_like(x)), torch.linspace(-2, 3, x.numel())
        weighted = slopes(weights.to(x).reshape(x.shape))
    except Exception:  # made for one precision, or for what its model gives it alone
        return None
    if middle.shape != x.shape or not torch.equal(middle, again):
        return None
    if not torch.equal(partly, torch.where(half, up, middle)):
        return None  # entries depend on each other
    if not torch.allclose(weighted, told * weights.to(x).reshape(x.shape), rtol=1e-6):
        return None  # clips, or draws
    left, right = (middle - down) / STEP, (up - middle) / STEP
    slope = (left + right) / 2
    steepest = slope.abs().max()
    smooth = (left - right).abs() <= 1e-3 * steepest
    sloped = smooth & (slope.abs() > NOTHING * steepest)
    flat = smooth & ~sloped
    some = slope[sloped]
    if not len(some) or (not flat.any() and bool((some - some[0]).abs().max() < NOTHING)):
        return None  # steps, or a straight line: what backward makes of those is a choice
    agreeing = (told * slope)[sloped]
    against = min(int((agreeing <= 0).sum()), int((agreeing >= 0).sum()))
    passes = int((told[flat] != 0).sum())
    return {"sloped": len(some), "against": against, "flat": passes}
