"""Targets that no node keeps, from what is kept of their difference to the model's output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradlint.graph import Operation
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.kinds import base_name

_SAME_ENTRIES = frozenset({
    "View", "UnsafeView", "ReshapeAlias", "Reshape", "Alias", "Squeeze", "Unsqueeze", "Clone",
    "ToCopy",
})  # fmt: skip
"""Nodes whose result has the entries of what they read, in its order."""

MAX_ENTRIES = 1 << 22
"""Larger differences are left alone, as larger inputs are."""

ROUNDING = 8.0
"""Units of the last place by which a sum of a difference and its subtrahend is off, at most."""


def compared(
    captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """Return an output of the model and the targets that `op` subtracts from it, or it from them.

    The difference is what the node behind keeps, for the derivative of its size or its square:
    ``F.l1_loss`` and losses by hand keep no targets, but output and difference give them back,
    up to rounding. Constants are none: ``(score - 1) ** 2`` compares with no data.

    Args:
        captured: The graph, before backward frees it.
        op: A subtraction.
        outputs: The model's output tensors.

    Returns:
        Both of one shape, the targets in float64; None where `op` reads no output as it is,
        or the difference was not kept.
    """
    node = captured.nodes.get(op.id)
    if node is None or base_name(op.name) != "Sub" or getattr(node, "_saved_alpha", 1) != 1:
        return None
    output = _read(captured, op, outputs)
    kept = [
        found
        for other in captured.graph.consumers.get(op.id, ())
        if (found := captured.saved(other, "self")) is not None and other.inputs[0] == op.id
    ]
    if output is None or not kept or not _plain(output, kept[0]):
        return None
    with torch.no_grad():
        difference = kept[0].detach()
        entered = output.detach().reshape(difference.shape)
        sign = 1.0 if captured.edges[op.id][0] is None else -1.0  # targets first, or output first
        targets = entered.double() + sign * difference.double()
        grid = _grid(difference, entered)
        if grid > 0:
            targets = (targets / grid).round_().mul_(grid)
        low, high = targets.amin(), targets.amax()
        varies = bool((high - low > grid).reshape(1).tolist()[0])
    return (entered, targets) if varies else None


def _read(captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]) -> Tensor | None:
    """Return the output whose entries `op` reads, in another shape at most."""
    while len(op.inputs) == 1:
        op = captured.graph.by_id[op.inputs[0]]
        node = captured.nodes.get(op.id)
        for output in outputs:
            if node is not None and output.grad_fn is node:
                return output
        if base_name(op.name) not in _SAME_ENTRIES:
            break
    return None


def _plain(output: Tensor, difference: Tensor) -> bool:
    """Whether both can be added, entry by entry, and there are not too many."""
    plain = all(type(t) is Tensor and t.is_floating_point() for t in (output, difference))
    alike = output.numel() == difference.numel() and output.device == difference.device
    return plain and alike and not output.is_meta and 0 < output.numel() <= MAX_ENTRIES


def _grid(difference: Tensor, output: Tensor) -> float:
    """Return a power of two within which the recovered targets are known."""
    largest = torch.stack([difference.double().abs().amax(), output.double().abs().amax()]).amax()
    size = largest.reshape(1).tolist()[0]
    precision = max(torch.finfo(t.dtype).eps for t in (difference, output))
    step = ROUNDING * precision * size
    return 2.0 ** math.ceil(math.log2(step)) if 0 < step < math.inf else 0.0
