"""What exemptions ask of attention: which parameters act through its softmax, and how."""

from __future__ import annotations

from gradlint.diagnosis.proofs import MOVES, dimensions, feeds_only, reaches_loss_only_through
from gradlint.graph import Operation
from gradlint.trace import Trace

_SCORES = MOVES | {"scale", "shift", "mask", "parameter_add", "add", "dropout"}
"""What may stand between the product of queries and keys and its softmax."""


def is_key_bias(trace: Trace, path: str) -> bool:
    """Whether `path` is added to the keys of an attention and to nothing else.

    Its share of a score is the same for all keys of a query, and a softmax over the keys
    ignores it. Rotary embeddings and normalized keys break that, and are not passed.
    """
    if dimensions(trace, path) != 1:
        return False
    graph = trace.graph
    readers = graph.reading(path)
    return bool(readers) and all(_is_key(trace, op) for op in readers)


def _is_key(trace: Trace, op: Operation) -> bool:
    graph = trace.graph
    through = MOVES | {"scale"}
    places = graph.ahead(op, lambda o: o.kind in through)
    sources = {op.id, *(o.id for o in graph.descendants(op) if o.kind in through)}
    for place in places:
        side = [i for i, source in enumerate(place.inputs) if source in sources]
        if place.kind == "attention" and side == [1]:
            continue
        if place.kind != "matmul" or len(side) != 1 or len(place.inputs) != 2:
            return False
        after = graph.ahead(place, lambda o: o.kind in _SCORES)
        if not after or not all(_ignores_side(o, side[0]) for o in after):
            return False
    return bool(places)


def _ignores_side(op: Operation, side: int) -> bool:
    """Whether a softmax runs over the keys: the last axis if they were the second factor."""
    dim = op.attributes.get("dim")
    return (
        op.kind in ("softmax", "log_softmax")
        and dim is not None
        and dim == len(op.shape) - (1 if side == 1 else 2)
    )


def score_softmaxes(trace: Trace) -> tuple[Operation, ...]:
    """Return the softmaxes inside the model."""
    return tuple(op for op in trace.graph if op.kind == "softmax" and not op.in_loss)


def feeds_only_scores(trace: Trace, path: str) -> bool:
    """Whether `path` reaches the loss through softmaxes alone, or as queries or keys."""
    if reaches_loss_only_through(trace, path, score_softmaxes(trace)):
        return True
    graph = trace.graph
    fused = feeds_only(trace, path, MOVES, lambda op: op.kind == "attention")
    for op in fused:
        sides = {
            side
            for side, source in enumerate(op.inputs)
            for reader in graph.reading(path)
            if source == reader.id or reader in _through_moves(trace, source)
        }
        if not sides <= {0, 1}:
            return False
    return bool(fused)


def _through_moves(trace: Trace, source: int) -> tuple[Operation, ...]:
    """Return what operation `source` moves entries of: itself, or what stands behind moves."""
    op = trace.graph.by_id[source]
    if op.kind not in MOVES:
        return (op,)
    return trace.graph.behind(op, lambda o: o.kind in MOVES)
