"""Which way a custom function's backward sends gradients where forward is linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradlint.probes.function_slopes import Made

PAIRS = 32
"""Entries of the input, each with an output that it moves."""

NOTHING = 1e-9
"""Of the largest entry, in float64: what rounding leaves."""

SAME = 1e-3
"""Of the size of what is compared, as slopes are."""


def function_ways(made: Made, place: int) -> Mapping[str, Any] | None:
    """Tell whether backward sends gradients the way forward sends values, not back.

    Args:
        made: A call of a function that is linear in the input at `place`, always the same, and
            so is its backward in what it is given.
        place: The input's place.

    Returns:
        ``pairs`` (of an entry of the input and an output that it moves), ``missed`` (those of
        them whose output passes nothing to that entry, though something to others), ``onward``
        (those whose output passes something to an entry that does not move it, but is moved
        in its own place by the entry in the output's), and ``itself`` (whether backward is
        forward, not its transpose). None where input and output differ in shape.
    """
    x = made.input(place)
    with torch.no_grad():
        start = made.forward()
    if start.shape != x.shape:
        return None

    def moved(direction: Tensor) -> Tensor:
        with torch.no_grad():
            return made.forward({place: x + direction}) - start

    def moves(entry: int) -> Tensor:
        return _some(moved(_one(x, entry)))

    generator = torch.Generator().manual_seed(0)
    pairs = missed = onward = 0
    for entry in torch.randperm(x.numel(), generator=generator)[:PAIRS].tolist():
        outputs = moves(entry)
        if not len(outputs):
            continue
        output = _other(outputs, entry, generator)
        receivers = _some(made.backward(_one(start, output))[place])
        pairs += 1
        if len(receivers):
            missed += entry not in receivers.tolist()
            receiver = _other(receivers, output, generator)
            astray = output not in moves(receiver).tolist()
            onward += astray and receiver in moves(output).tolist()
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    forwards = moved(drawn)
    itself = bool((made.backward(drawn)[place] - forwards).norm() <= SAME * forwards.norm())
    return {"pairs": pairs, "missed": missed, "onward": onward, "itself": itself}


def _one(like: Tensor, place: int) -> Tensor:
    one = torch.zeros_like(like, dtype=torch.float64).flatten()
    one[place] = 1.0
    return one.reshape(like.shape)


def _some(values: Tensor) -> Tensor:
    """Return the places of the entries that are not zero."""
    sizes = values.flatten().abs()
    return (sizes > NOTHING * sizes.max()).nonzero().flatten()


def _other(places: Tensor, own: int, generator: torch.Generator) -> int:
    """Return one of some places, if possible another than `own`: loops have no direction."""
    others = places[places != own]
    places = others if len(others) else places
    return int(places[int(torch.randint(len(places), (), generator=generator))])
