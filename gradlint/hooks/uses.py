"""How often a loss by hand uses a prediction."""

from __future__ import annotations

from gradlint.graph import Operation
from gradlint.hooks.attributes import signed
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.kinds import base_name

_SPLITS = frozenset({"Split", "SplitWithSizes", "Unbind"})


def used_once(captured: CapturedGraph, op: Operation, reader: Operation, loss: set[int]) -> bool:
    """Whether a prediction is used once, by `reader`, and the loss put in no axis of it."""
    graph = captured.graph
    while all(o is reader or _apart(captured, op, reader, o) for o in graph.consumers[op.id]):
        if op.id not in loss or len(op.inputs) != 1:
            return True
        if base_name(op.name) == "Unsqueeze":
            return False
        reader, op = op, graph.by_id[op.inputs[0]]
    return False


def _apart(captured: CapturedGraph, op: Operation, one: Operation, other: Operation) -> bool:
    """Whether two operations read different parts of a result, as a mean and a variance are."""
    mine, theirs = (_part(captured, op, reader) for reader in (one, other))
    if mine is None or theirs is None:
        return False
    (axis, low, high), (another, first, last) = mine, theirs
    return axis == another and (high <= first or last <= low)


def _part(captured: CapturedGraph, op: Operation, reader: Operation) -> tuple[int, int, int] | None:
    """Return the axis along which a part of a result is read, and from where to where."""
    if base_name(op.name) in _SPLITS:
        functions = captured.nodes[reader.id].next_functions
        edges = zip(captured.edges[reader.id], functions, strict=True)
        (place, *more) = {number for edge, (_, number) in edges if edge == op.id}
        return None if more else (0, place, place + 1)
    node = captured.nodes[reader.id]
    sizes, name = reader.attributes.get("input_shape", ()), base_name(reader.name)
    if name not in ("Select", "Slice") or not sizes:
        return None
    axis = int(reader.attributes["dim"])
    if name == "Select":
        low = signed(node._saved_index) % sizes[axis]
        return axis, low, low + 1
    low, high = (signed(n) for n in (node._saved_start, node._saved_end))
    return axis, *slice(low, high).indices(sizes[axis])[:2]
