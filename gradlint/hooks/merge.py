"""Facts of several batches as facts of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradlint.graph import Graph, Operation
from gradlint.hooks.tensor_facts import merged
from gradlint.trace import LossFacts, TensorFacts

MAX_CHAIN = 64
"""Operations between a loss and the nearest layers that are kept of another step's graph."""


def merged_losses(found: list[LossFacts]) -> list[LossFacts]:
    """Merge the facts of one loss over batches, so that the widest ranges are known.

    Mean and spread of an output stay those of the first batch: updates move the later ones.
    """
    by_place: dict[tuple[object, ...], LossFacts] = {}
    for facts in found:
        key = (facts.kind, facts.operation, facts.classes)
        known = by_place.get(key)
        if known is None:
            by_place[key] = facts
            continue
        by_place[key] = replace(
            known,
            output=_as_at_first(known.output, _widest(known.output, facts.output)),
            target=_widest(known.target, facts.target),
            row_sum_min=_of(min, known.row_sum_min, facts.row_sum_min),
            row_sum_max=_of(max, known.row_sum_max, facts.row_sum_max),
        )
    return list(by_place.values())


class Places:
    """Where losses stand: one of another graph than the first has no place in that one.

    Heads that train in turns give every step a graph of its own, with the same numbers for
    other operations. Losses behind the same layers share a number below zero there.
    """

    def __init__(self) -> None:
        self._elsewhere: dict[object, int] = {}

    def placed(self, found: list[LossFacts], graph: Graph, first: Graph) -> list[LossFacts]:
        """Return the facts of losses in `graph`, their operations told as those of `first`."""
        return [self._placed(facts, graph, first) for facts in found]

    def _placed(self, facts: LossFacts, graph: Graph, first: Graph) -> LossFacts:
        place = self._place(facts, graph, first)
        if place == facts.operation or facts.operation is None:
            return facts
        return replace(facts, operation=place, before=_chain(graph, facts.operation))

    def _place(self, facts: LossFacts, graph: Graph, first: Graph) -> int | None:
        if facts.operation is None or graph is first:
            return facts.operation
        here, there = _judged(graph, facts.operation), _judged(first, facts.operation)
        if here == there:
            return facts.operation
        return self._elsewhere.setdefault((facts.kind, here), -1 - len(self._elsewhere))


def _chain(graph: Graph, number: int) -> tuple[Operation, ...]:
    """Return a loss and the operations in front of it, up to the nearest layers."""
    kept: dict[int, Operation] = {}
    waiting = [number]
    while waiting and len(kept) <= MAX_CHAIN:
        op = graph.by_id.get(waiting.pop())
        if op is None or op.id in kept:
            continue
        layer = bool(op.parameters)
        kept[op.id] = replace(op, inputs=()) if layer else op
        waiting += () if layer else op.inputs
    return tuple(kept[i] for i in sorted(kept)) if len(kept) <= MAX_CHAIN else ()


def _judged(graph: Graph, number: int) -> tuple[object, ...]:
    """Return what tells a loss apart: its kind, and the layers whose output it judges."""
    op = graph.by_id.get(number)
    if op is None:
        return ()
    layers = graph.behind(op, lambda o: not o.parameters)
    return (op.kind, *sorted((o.kind, o.module or "", *o.parameters) for o in layers))


def _of(choose: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    return choose(a, b) if a is not None and b is not None else (a if b is None else b)


def _as_at_first(first: TensorFacts | None, wide: TensorFacts | None) -> TensorFacts | None:
    if first is None or wide is None:
        return wide
    return replace(wide, mean=first.mean, std=first.std)


def _widest(a: TensorFacts | None, b: TensorFacts | None) -> TensorFacts | None:
    if a is None or b is None:
        return a or b
    return merged([(a,), (b,)])[0]
