"""What a layer's output measures when it reads an input, or several side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import prod

from gradlint.graph import Operation
from gradlint.trace import TensorFacts, Trace

MOST = 6
"""Inputs of a model above which no sets of them are looked for."""


def reading(trace: Trace, op: Operation, scale: float) -> float | None:
    """Return the measured output of a layer against what its weights make of an input.

    Args:
        trace: What was measured.
        op: A linear layer or convolution.
        scale: Root mean square of the input it is thought to read.

    Returns:
        Measured over expected root mean square at initialization; near 1 if the layer reads
        an input of that scale. None where something of it was not measured.
    """
    path = op.module or ""
    root = trace.modules.get("")
    if not path and (root is None or not root.leaf):
        return None  # an operation of the model's own, not a layer
    facts = [trace.parameters[p] for p in op.parameters if p in trace.parameters]
    weight = next((p for p in facts if len(p.shape) >= 2), None)
    bias = next((p for p in facts if len(p.shape) == 1), None)
    seen = trace.of("activation_rms").at(path).initial
    if weight is None or not seen.values:
        return None
    spread = trace.of("weight_rms").at(weight.path).initial.first
    offset = trace.of("weight_rms").at(bias.path).initial.first if bias is not None else 0.0
    expected = math.hypot(spread * math.sqrt(weight.fan_in) * scale, offset)
    return seen.median / expected if expected > 0 else None


def joined(trace: Trace) -> Iterator[tuple[str, TensorFacts, float]]:
    """Yield inputs that a first linear layer reads beside others, and how many times theirs.

    A layer of as many inputs as some of the model's tensors have numbers a sample reads those,
    as they are, if its measured output is what its weights make of all of them, and more than
    they make of all but the largest: whole numbers turned into features among them.

    Yields:
        The layer's path, the largest tensor, and its scale over the median of the others'.
    """
    size = trace.facts.batch_size
    tensors = [t for t in trace.facts.inputs if t.shape[:1] == (size,) and not t.non_finite]
    if len(tensors) > MOST:
        return
    for op in trace.weight_layers():
        weights = [trace.parameters[p] for p in op.parameters if p in trace.parameters]
        width = max((p.fan_in for p in weights), default=0)
        if op.inputs or op.kind != "linear":
            continue
        for count in range(2, len(tensors) + 1):
            for together in combinations(tensors, count):
                if sum(map(_width, together)) == width:
                    yield from _largest(trace, op, together)


def _largest(
    trace: Trace, op: Operation, together: Sequence[TensorFacts]
) -> Iterator[tuple[str, TensorFacts, float]]:
    large = max(together, key=scale_of)
    others = [t for t in together if t is not large]
    usual = statistics.median(scale_of(t) for t in others for _ in range(_width(t)))
    width = sum(map(_width, together))
    whole, rest = (
        reading(trace, op, math.sqrt(sum(_width(t) * scale_of(t) ** 2 for t in some) / width))
        for some in (together, others)
    )
    if whole is not None and 0.5 <= whole <= 2 and (rest is None or rest > 2) and usual > 0:
        yield op.module or "", large, scale_of(large) / usual


def scale_of(tensor: TensorFacts) -> float:
    """Return the root mean square of a tensor's entries."""
    return math.hypot(tensor.mean, tensor.std)


def _width(tensor: TensorFacts) -> int:
    return prod(tensor.shape[1:])
