"""Whether a loop descends a loss with its sign turned round. No rule here."""

from __future__ import annotations

from gradlint.graph import WEIGHTED, Graph, Operation
from gradlint.rules._losses import REGRESSION
from gradlint.rules._optimizer import maximizes
from gradlint.trace import LossFacts, Trace

_SIGNED = REGRESSION | {"cross_entropy", "bce", "bce_with_logits"}
"""Losses of which the less is the better; what NLLLoss reads may have any sign."""

_KEEPING = frozenset({"mean", "sum", "view", "squeeze", "cast", "transpose", "expand"})
"""What a loss passes alone on its way to a number, and without losing its sign."""

_DISTANCES = frozenset({"pow", "square", "abs"})


def negated(trace: Trace) -> LossFacts | None:
    """Return the loss that the whole model descends with its sign turned round, if it does.

    Its sign is turned where an odd number of negations, and of factors below zero, lead from
    the loss to the number that backward starts from. Other terms beside it make it a weighing
    of aims, a second loss in a step or a second optimizer an adversary, a layer that nobody
    trains the judge of another one: in none of these is anything returned, and neither of
    weights that were trained before, which unlearn so, nor where the optimizer climbs.
    """
    losses = {seen.operation: seen for seen in trace.facts.losses}
    if len(losses) != 1 or trace.facts.pretrained or maximizes(trace):
        return None
    ((place, loss),) = losses.items()
    if place is None or loss.kind not in _SIGNED or loss.target is None:
        return None
    if not _alone(trace) or not _all_trained(trace):
        return None
    sign = _sign(trace.graph, trace.graph.by_id[place], distance=loss.kind in REGRESSION)
    return loss if sign == -1 else None


def _alone(trace: Trace) -> bool:
    """Whether every step follows one backward pass, and is the same optimizer's."""
    loop = trace.facts.loop
    if loop is None:
        return True
    one = loop.streams == 1 and len(loop.optimizers) == 1 and not loop.by_hand
    return one and loop.scaler is None and loop.backwards <= loop.steps + 1


def _all_trained(trace: Trace) -> bool:
    """Whether the optimizer holds a part of every layer that the graph shows."""
    layers = [op for op in trace.graph if op.kind in WEIGHTED]
    held = {path for path, facts in trace.parameters.items() if facts.in_optimizer}
    return bool(layers) and all(held.intersection(op.parameters) for op in layers)


def _sign(graph: Graph, op: Operation, *, distance: bool) -> int | None:
    """Return the sign with which a loss enters the number that backward starts from.

    None where another term enters it, too, or a factor whose sign is not known.
    """
    sign = 1
    while following := graph.consumers[op.id]:
        op = following[0]
        factor = op.attributes.get("scalar")
        if op.kind == "neg":
            sign = -sign
        elif op.kind == "scale" and isinstance(factor, int | float) and factor:
            sign = -sign if factor < 0 else sign
        elif distance and op.kind in _DISTANCES:
            sign = 1  # of a difference
        elif op.kind not in _KEEPING:
            return None
    roots = [other for other in graph if not graph.consumers[other.id]]
    return sign if len(roots) == 1 else None
