"""What a layer's output measures when it reads an input of a given size."""

from __future__ import annotations

import math

from gradlint.graph import Operation
from gradlint.trace import Trace


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
