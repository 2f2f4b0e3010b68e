"""Views that deal the samples of a batch out anew. No rule here."""

from __future__ import annotations

from gradlint.graph import Graph, Operation


def dealt_anew(graph: Graph, rows: int) -> tuple[Operation, str] | None:
    """Return the first view of the model that mixes its `rows` samples, and what it does."""
    for op in graph.of_kind("view"):
        before = tuple(op.attributes.get("input_shape", ()))
        why = _split(graph, op, before, rows) or _interleaved(graph, op, before, rows)
        if why is not None and not op.in_loss:
            return op, f"a view turns {by(before)} into {by(op.shape)}: {why}"
    return None


def _split(graph: Graph, op: Operation, before: tuple[int, ...], rows: int) -> str | None:
    """Say why a view that moves the number of samples to axis 1 is at fault, or None.

    Where a later one puts it back to the front, what is between them treats entries alike.
    """
    after = op.shape
    if before[:1] != (rows,) or before.count(rows) > 1 or after.count(rows) > 1:
        return None
    if (
        after[:1] == (1,)
        or after[1:2] != (rows,)
        or any(o.kind == "view" and o.shape[:1] == (rows,) for o in graph.descendants(op))
    ):
        return None
    return f"axis 1 has the length of the batch, and no entry of it is one of the {rows} samples"


def _interleaved(graph: Graph, op: Operation, before: tuple[int, ...], rows: int) -> str | None:
    """Say why a view of what was joined along the batch is at fault, or None."""
    if len(op.inputs) != 1 or op.shape[:1] != (rows,):
        return None
    (joined,) = graph.inputs_of(op)
    sides = graph.inputs_of(joined)
    several = joined.kind == "concat" and len(sides) > 1 and joined.attributes.get("dim") == 0
    if not several or any(s.shape[:1] != (rows,) or s.shape.count(rows) > 1 for s in sides):
        return None
    if before[:1] != (len(sides) * rows,):
        return None
    return f"each of its rows holds {len(sides)} samples of one input, joined along the batch"


def by(shape: tuple[int, ...] | None) -> str:
    """Return a shape as it is read aloud."""
    return " × ".join(str(size) for size in shape or ())
