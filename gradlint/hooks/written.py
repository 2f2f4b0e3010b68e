"""Losses written by hand, told by their form: what entered them, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gradlint.graph import Operation
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.kinds import base_name
from gradlint.hooks.pairs import pairs
from gradlint.hooks.tensor_facts import number, readable

MOVES = frozenset({"view", "squeeze", "cast", "clone", "transpose"})
_LINEAR = MOVES | {"sum", "mean", "scale", "shift", "add", "sub", "neg", "mask"}
"""Operations whose result is a linear function of what they read, up to a constant."""

_CHOOSES = frozenset({"Gather", "Index"})

Numbers = Mapping[str, float]


def written(captured: CapturedGraph, outputs: Sequence[Tensor]) -> dict[str, Numbers]:
    """Return what entered the losses by hand that `captured` holds, by their form.

    Args:
        captured: The graph, before backward frees it.
        outputs: The model's output tensors.

    Returns:
        "overlap": a quotient of two sums of one output, of which the upper one counts the
        entries that targets of 0 and 1 choose (Dice, Jaccard, Tversky), with the output's
        ``minimum`` and ``maximum``. "chosen": one entry of each row of an output, weighed by
        data and averaged (a policy's gradient), with ``minimum``, ``maximum`` and, of the rows'
        exponentials, ``row_sum_min`` and ``row_sum_max``. "ranking": a hinge of the difference of
        two scores times minus its targets, with their ``minimum``, ``maximum`` and the share of
        them that is 0 (``zeros``). "divergence": data of which a product with other data is
        subtracted, entry by entry, as `F.kl_div` has it, with the sums of the other data's rows
        (``row_sum_min``, ``row_sum_max``). "pairs": a difference that is a table of all pairs;
        see `pairs`.
    """
    asked: dict[str, tuple[str, Callable[..., Numbers | None]]] = {
        "overlap": ("div", _overlap),
        "chosen": ("index", _chosen),
        "ranking": ("relu", _ranking),
        "divergence": ("shift", _divergence),
        "pairs": ("shift", lambda captured, op, _: pairs(captured, op)),
    }
    found: dict[str, Numbers] = {}
    for op in captured.graph:
        for name, (kind, look) in asked.items():
            inside = op.in_loss or name == "pairs"  # which looks for the loss itself
            if not inside or op.kind != kind or name in found:
                continue
            with torch.no_grad():
                numbers = look(captured, op, outputs)
            if numbers is not None:
                found[name] = numbers
    return found


def _overlap(captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]) -> Numbers | None:
    edges = captured.edges.get(op.id, [])
    if len(edges) != 2 or edges[0] is None or edges[1] is None:
        return None
    above, over = _linear(captured, edges[0], _LINEAR)
    below, under = _linear(captured, edges[1], _LINEAR | {"clamp"})
    if above is None or above is not below:
        return None
    output = _output(captured, above, outputs)
    sums = all(any(o.kind in ("sum", "mean") for o in way) for way in (over, under))
    if output is None or not sums:
        return None
    chosen = any(
        factor.numel() == output.numel() and _of_two(factor, 0.0, 1.0)
        for o in over
        if (factor := data_of(captured, o)) is not None and _reads(captured, o, above)
    )
    return _range(output) if chosen else None


def _chosen(captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]) -> Numbers | None:
    source, way = _linear(captured, op.id, MOVES | {"index"})
    one = sum(o.kind == "index" for o in way) == 1
    if base_name(op.name) not in _CHOOSES or source is None or not one:
        return None
    output = _output(captured, source, outputs)
    alone = len(captured.graph.consumers[source.id]) == 1
    if output is None or not alone or output.ndim != 2 or op.shape not in _one_each(output):
        return None
    weighed = False
    last = op
    while captured.graph.consumers[last.id]:
        following = captured.graph.consumers[last.id]
        last = following[0]
        if len(following) > 1 or last.kind not in _LINEAR:
            return None
        factor = data_of(captured, last)
        weighed = weighed or (factor is not None and _weighs(factor))
    if not weighed:
        return None
    sums = output.double().exp().sum(1)
    ends = {"row_sum_min": number(sums.amin()), "row_sum_max": number(sums.amax())}
    return {**_range(output), **ends}


def _ranking(captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]) -> Numbers | None:
    """Find ``relu(-target * (first - second) + margin)``, as `F.margin_ranking_loss` has it."""
    way = []
    for kind in ("shift", "mask", "sub"):
        if len(op.inputs) != 1:
            return None
        op = captured.graph.by_id[op.inputs[0]]
        if op.kind != kind:
            return None
        way.append(op)
    factor = data_of(captured, way[1])
    compares = len(op.inputs) == 2 and factor is not None and tuple(factor.shape) == op.shape
    if factor is None or not compares or not _of_two(factor, -1.0, 0.0):
        return None
    zeros = number((factor == 0).double().mean())
    return {"minimum": 0.0, "maximum": -number(factor.amin()), "zeros": zeros}


def _divergence(
    captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]
) -> Numbers | None:
    edges = captured.edges.get(op.id, [])
    if base_name(op.name) != "Sub" or len(edges) != 2 or edges[0] is not None:
        return None
    factor = data_of(captured, captured.graph.by_id[op.inputs[0]])
    if factor is None or factor.ndim < 2 or tuple(factor.shape) != op.shape:
        return None
    sums = factor.double().sum(-1)
    probable = bool(number((factor >= 0).all()))
    ends = {"row_sum_min": number(sums.amin()), "row_sum_max": number(sums.amax())}
    return ends if probable else None


def _linear(
    captured: CapturedGraph, number: int, kinds: frozenset[str]
) -> tuple[Operation | None, list[Operation]]:
    """Return the one result of the model that an operation of the loss is linear in, if so."""
    graph = captured.graph
    sources: dict[int, Operation] = {}
    way: dict[int, Operation] = {}
    waiting = [number]
    while waiting:
        op = graph.by_id[waiting.pop()]
        if not op.in_loss:
            sources[op.id] = op
        elif op.kind not in kinds:
            return None, []
        elif op.id not in way:
            way[op.id] = op
            waiting += op.inputs
    return (next(iter(sources.values())) if len(sources) == 1 else None), list(way.values())


def _reads(captured: CapturedGraph, op: Operation, source: Operation) -> bool:
    """Whether an operation reads a result of the model as it is, in another shape at most."""
    way = captured.graph.behind(op, lambda o: o.in_loss and o.kind in MOVES)
    return [o.id for o in way] == [source.id]


def _output(captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]) -> Tensor | None:
    """Return the output of the model that `op` made."""
    node = captured.nodes.get(op.id)
    for output in outputs:
        if node is not None and output.grad_fn is node and readable(output):
            return output.detach()
    return None


def data_of(captured: CapturedGraph, op: Operation) -> Tensor | None:
    """Return the data that a product of a loss has as one of its two factors."""
    if op.kind != "mask" or base_name(op.name) != "Mul":
        return None
    kept = [t for name in ("other", "self") if (t := captured.saved(op, name)) is not None]
    return kept[0].detach() if len(kept) == 1 and readable(kept[0]) else None


def _of_two(tensor: Tensor, low: float, high: float) -> bool:
    """Whether a tensor holds two values, both of them, and no other."""
    lower, upper = tensor == low, tensor == high
    return bool(number((lower | upper).all() & lower.any() & upper.any()))


def _one_each(output: Tensor) -> tuple[tuple[int, ...], ...]:
    rows = int(output.shape[0])
    return (rows,), (rows, 1)


def _weighs(factor: Tensor) -> bool:
    """Whether factors are no signs and no mask, but say how much each sample counts."""
    sizes = factor.double().abs()
    return not bool(number(((sizes == 0) | (sizes == sizes.amax())).all()))


def _range(output: Tensor) -> dict[str, float]:
    return {"minimum": number(output.amin()), "maximum": number(output.amax())}
