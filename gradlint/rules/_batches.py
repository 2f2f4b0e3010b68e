"""What rules ask of single batches: whether one is unlike those before it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from gradlint.rules._series import points
from gradlint.trace import ModuleFacts, Trace

_PLAIN = frozenset({"Linear", "Conv1d", "Conv2d", "Conv3d"})
"""Layers whose output is linear in what they are given."""

_BEFORE = 5
"""Steps at least that tell what is usual."""

_AFTER = 5
"""Steps in which another batch is to be answered as usual, within a third of the rise."""


@dataclass(frozen=True, slots=True)
class Unlike:
    """A step whose batch a layer answers with a multiple of what it answered before."""

    step: int
    module: str
    rise: float
    """The layer's output against the largest before."""
    moved: float
    """By what share of themselves the layer's weights had changed in the step before."""


def unlike(trace: Trace, step: int, factor: float) -> Unlike | None:
    """Return what a layer that is called on the input says of the batch of `step`.

    An update of r times the weights changes the output by at most r·√n times a usual one, n the
    number of the layer's inputs: a rise of `factor` times that and more is the batch's. It is that
    batch's alone where one of the next is answered with less than a third of it.
    """
    for module in sorted(trace.modules.values(), key=lambda m: m.depth):
        if module.kind in _PLAIN and module.input_given and not module.ours:
            found = _of_layer(trace, module, step, factor)
            if found is not None:
                return found
    return None


def _of_layer(trace: Trace, module: ModuleFacts, step: int, factor: float) -> Unlike | None:
    seen = dict(points(trace, "activation_rms", module.path))
    facts = [trace.parameters[p] for p in module.parameters if p in trace.parameters]
    weight = next((p for p in facts if len(p.shape) >= 2), None)
    before = [value for at, value in seen.items() if at < step]
    if weight is None or step not in seen or step - 1 not in seen or len(before) < _BEFORE:
        return None
    moved = dict(points(trace, "update_to_weight_ratio", weight.path)).get(step - 1)
    if moved is None or max(before) <= 0:
        return None
    rise = seen[step] / max(before)
    after = [value for at, value in seen.items() if step < at <= step + _AFTER]
    if not after or min(after) > seen[step] / 3:
        return None  # other data from there on, or weights that answer all batches so
    if rise <= factor * (1 + moved * math.sqrt(max(1, weight.fan_in))):
        return None
    return Unlike(step, module.path, rise, moved)


def jumps(trace: Trace, factor: float) -> list[tuple[int, float, float]]:
    """Steps whose gradient's norm is above `factor` times all before, with it and the usual one.

    Numbers that are not finite are none.
    """
    series = points(trace, "total_gradient_norm")
    found = []
    for i in range(_BEFORE, len(series)):
        before = [value for _, value in series[:i]]
        if series[i][1] > factor * max(before) > 0:
            found.append((*series[i], statistics.median(before)))
    return found


def never_back(trace: Trace, step: int, factor: float) -> bool:
    """Whether the loss ended not finite, or `factor` times above where it was before `step`."""
    losses = sorted({o.step: o.value for o in trace.of("loss").training}.items())
    before = [value for at, value in losses if at < step]
    after = [value for at, value in losses if at > step]
    late = after[-max(1, len(after) // 4) :]
    if not before or not after or not all(map(math.isfinite, before)):
        return False
    if not all(map(math.isfinite, late)):
        return True
    scale = max(abs(value) for value in before)
    return scale > 0 and statistics.median(late) > factor * scale
