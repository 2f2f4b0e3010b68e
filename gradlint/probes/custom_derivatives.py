"""Does a custom autograd.Function slope as its backward says? Central differences."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from gradlint.probes.function_slopes import SAME, Made, function_slopes
from gradlint.probes.function_ways import function_ways
from gradlint.target.trial import copied
from gradlint.target.user_code import is_users

STEP = 1e-5
"""Half of the difference: what it errs by, and what rounding adds, is below 1e-9 in float64."""

NOTHING = 1e-6
"""Slope, against the steepest, from which on an entry counts as sloped."""

CLEARLY = 0.1
"""Of the steepest slope, and of what backward usually passes with the right sign: from there
on a sign counts. Approximations of a derivative go through zero elsewhere: one of GELU's by
three steps has -0.05 of its largest where GELU rises."""

MAX_ENTRIES = 1 << 20
MAX_FUNCTIONS = 8


def custom_derivatives(
    model: nn.Module,
    run: Callable[[nn.Module, Any], Any],
    batch: Any,
    fresh: Callable[[], nn.Module] | None = None,
) -> Mapping[str, Any] | None:
    """Compare the backward of functions of the user's own with differences, on a copy of `model`.

    An input is looked at entry by entry where the function changes it so, always in the same
    way, its slope is not the same everywhere, and backward is linear in what it is given.

    Args:
        model: The model; unchanged.
        run: Calls a model on a batch, always with the same random state.
        batch: A batch.
        fresh: Returns the model as it was before training: what a wrong gradient has made of a
            parameter (a threshold below zero) may leave nothing to compare.

    Returns:
        By the function's name, ``entries`` and others. The first holds, by the input's name,
        ``sloped`` (entries at which it rises or falls), ``against`` (those of them at which
        backward has the other sign or nothing, whatever the sign of all), ``flat`` (entries
        at which it does neither and backward passes something), ``along`` (the cosine of
        both), ``agreeing`` and ``opposite`` (entries at which both slope clearly, to the same
        side or not, where of those at which forward rises, or falls, backward has some of
        each) and ``turned`` (whether one term of the product rule has the other sign: forward
        is x·h(x) for some h, as SiLU is, and backward h(x) - x·h'(x), or the opposite). The
        second is what `function_slopes` says of every input, a third, ``ways``, what
        `function_ways` says of those in which forward is linear and backward not its
        transpose. None where there is nothing to compare.
    """
    found: dict[type[Function], Mapping[str, Any]] = {}
    for twin in (lambda: copied(model, model), fresh):
        calls: dict[type[Function], Made] = {}
        if twin is not None:
            with torch.enable_grad(), _recording(calls):
                run(twin(), batch)
        for function, made in list(calls.items())[:MAX_FUNCTIONS]:
            if not any(found.get(function, {}).values()):
                found[function] = _compared(made)
        if all(any(compared.values()) for compared in found.values()):
            break
    return {f.__name__: c for f, c in found.items() if any(c.values())} or None


@contextmanager
def _recording(calls: dict[type[Function], Made]) -> Iterator[None]:
    """Keep the arguments of each user's function at its first call that needs a gradient."""
    own = Function.__dict__["apply"]
    apply = own.__func__

    def recorded(cls: type[Function], *args: Any, **options: Any) -> Any:
        found = calls.get(cls)
        if (found is None or not found.needs) and not options and _is_users(cls):
            kept = (a.detach().to("cpu", copy=True) if isinstance(a, Tensor) else a for a in args)
            needs = (i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad)
            calls[cls] = Made(cls, tuple(kept), frozenset(needs))
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


def _compared(made: Made) -> Mapping[str, Mapping[str, Any]]:
    try:
        slopes = function_slopes(made)
    except Exception:  # made for one precision, or for what its model gives it alone
        slopes = None
    ways = {}
    for place in made.places:
        slope = (slopes or {}).get(made.name(place))
        if slope is not None and not slope["curved"] and not slope["right"]:
            with suppress(Exception):
                seen_ways = function_ways(made, place)
                if seen_ways is not None:
                    ways[made.name(place)] = seen_ways
    entries = {}
    for place in made.places:
        if slopes is None and len(made.places) > 1:
            break  # a step in one input is one in the others' eyes, too
        with suppress(Exception):
            seen = _by_entries(made, place)
            if seen is not None:
                entries[made.name(place)] = seen
    return {"entries": entries, "slopes": slopes or {}, "ways": ways}


def _by_entries(made: Made, place: int) -> Mapping[str, float | bool] | None:
    x = made.input(place)
    if place not in made.needs or x.numel() > MAX_ENTRIES:
        return None

    def call(value: Tensor) -> Tensor:
        return made.forward({place: value})

    def passed(cotangent: Tensor, at: Tensor) -> Tensor:
        return made.backward(cotangent, {place: at})[place]

    with torch.no_grad():
        middle, up, down = call(x), call(x + STEP), call(x - STEP)
        half = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        partly, turned = call(torch.where(half, x + STEP, x)), call(_turned(x))
    if middle.shape != x.shape:
        return None
    if not torch.equal(partly, torch.where(half, up, middle)):
        return None  # entries depend on each other, or are drawn
    weights = torch.linspace(-2, 3, x.numel()).to(x).reshape(x.shape)
    told = passed(torch.ones_like(x), x)
    if not torch.allclose(passed(weights, x), told * weights, rtol=1e-6):
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
    backwards = passed(torch.ones_like(x), _turned(x))
    alike = torch.allclose(turned, _turned(middle)) and torch.allclose(backwards, _turned(told))
    agreeing = (told * slope)[sloped]
    against = min(int((agreeing <= 0).sum()), int((agreeing >= 0).sum()))
    same, other = _signs(told[smooth], slope[smooth]) if alike else (0, 0)
    return {
        "sloped": len(some),
        "against": against,
        "flat": int((told[flat] != 0).sum()),
        "agreeing": same,
        "opposite": other,
        "turned": _turns_a_term(x[smooth], middle[smooth], slope[smooth], told[smooth]),
        "along": float(functional.cosine_similarity(told[smooth], slope[smooth], dim=0)),
    }


def _turned(x: Tensor) -> Tensor:
    """Return the samples in the opposite order: some of them are meant to be reversed at times."""
    return x.flip(0) if x.dim() else x


def _turns_a_term(x: Tensor, value: Tensor, slope: Tensor, told: Tensor) -> bool:
    """Whether backward is h - x·h' where forward is x·h: of h + x·h' that is 2·h less the slope."""
    apart = x.abs() > 1e-3 * x.abs().max()
    wrong = 2 * value[apart] / x[apart] - slope[apart]
    return any(
        bool((side * told[apart] - wrong).norm() < SAME * told[apart].norm()) for side in (1, -1)
    )


def _signs(told: Tensor, slope: Tensor) -> tuple[int, int]:
    """Count same and opposite signs where backward has some of each for one of forward's."""
    clear = slope.abs() > CLEARLY * slope.abs().max()
    right = clear & (told * slope > 0)
    same = other = 0
    for side in (clear & (slope > 0), clear & (slope < 0)):
        agreeing = told[side & right].abs()
        if len(agreeing):
            least = CLEARLY * max(agreeing.median(), told[right].abs().median())
            wrong = int((told[side & ~right].abs() > least).sum())
            same, other = same + (len(agreeing) if wrong else 0), other + wrong
    return same, other
