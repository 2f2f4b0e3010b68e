"""Weights that a recurrent network applies to its own state, step after step. No rule here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from gradlint.graph import ACTIVATIONS, Graph, Operation
from gradlint.rules._chains import MULTIPLIES, PASSES, Link, hands_on, weight_of
from gradlint.trace import Trace


def recurrences(trace: Trace) -> Iterator[tuple[str, tuple[Link, ...]]]:
    """Yield each weight that is applied again to what it led to, and its uses in order.

    What is added at each step (the input of a recurrent network) may stand in between, and
    activations, but no other weight and no normalization: layers shared over depth are none.
    """
    graph = trace.graph
    uses: dict[str, list[Operation]] = {}
    for op in graph:
        if op.kind in MULTIPLIES and not op.in_loss and (path := weight_of(trace, op)):
            uses.setdefault(path, []).append(op)
    for path, ops in uses.items():
        state = all(after in graph.ahead(op, _sums_and_hands_on) for op, after in pairwise(ops))
        if len(ops) > 1 and state:
            yield path, tuple(Link(op, _activation_behind_sum(graph, op)) for op in ops)


def _sums_and_hands_on(op: Operation) -> bool:
    return op.kind == "add" or hands_on(op)


def _activation_behind_sum(graph: Graph, op: Operation) -> Operation | None:
    plain = (PASSES | {"scale", "add"}) - ACTIVATIONS
    found = [o for o in graph.ahead(op, lambda o: o.kind in plain) if o.kind in ACTIVATIONS]
    return found[0] if len(found) == 1 else None
