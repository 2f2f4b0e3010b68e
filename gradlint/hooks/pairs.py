"""Tables of all pairs that a loss by hand makes of its predictions and targets, and averages."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from gradlint.graph import Graph, Operation
from gradlint.hooks.graph import CapturedGraph, shape_of
from gradlint.hooks.kinds import base_name
from gradlint.hooks.tensor_facts import number, readable
from gradlint.hooks.uses import used_once

FEWEST = 3
"""Samples, at least: of two, one equation tells a table of differences from any other."""

ROUNDING = 8.0
"""Units of the last place of the largest by which entries of a table are off, at most."""

MARGIN = 10.0
"""How far beyond that the targets have to differ: else any table is one of differences."""

_DIFFERENCE, _SCALED, _SIZE, _MOVED = range(4)
"""A difference; one times what goes with its prediction; what a function of each entry alone makes
of it; a size less data of any kind, or with what goes with its prediction."""

_AS_IT_IS = frozenset({"scale", "neg", "cast", "clone", "add", "sub"})
_SIZES = frozenset({"pow", "abs", "clamp", "hardtanh", "cosh", "mul", "maximum", "minimum"})
_OF_SIZES = frozenset({"log", "log1_p", "sqrt"})
_PRODUCTS = frozenset({"mul", "div", "parameter_mul"})
_SUMS = frozenset({"add", "sub", "parameter_add"})
_ENDS = frozenset({"mean", "sum", "linalg_vector_norm"})


def pairs(captured: CapturedGraph, op: Operation) -> Mapping[str, float] | None:
    """Return of how many samples `op` takes every target from every prediction.

    A loss that averages one function of all entries of such a table tells no sample's target
    from another's. That it is one is read from its entries, ``p[j] - t[i]``. So does one that is
    weighed by what a model says of each prediction, ``s[j]``, or of all (a likelihood with a
    learned variance). Data of pairs (a matrix of distances), a product with any (a kernel, a plan
    of transport, levels of quantiles), a choice among the pairs, an axis put in by hand and a
    prediction of which there is one more use (an energy distance compares samples with each
    other, too) are meant so.

    Args:
        captured: The graph, before backward frees it.
        op: An addition or a subtraction of data.

    Returns:
        ``count`` of samples, and ``column``: whether their predictions are a column, 1, or a
        row, 0. None where there is no such table, or its entries are not kept.
    """
    count = op.shape[0] if op.shape else 0
    if count < FEWEST or op.shape != (count, count) or not op.inputs:
        return None
    before, reader = captured.graph.by_id[op.inputs[0]], op
    if before.kind == "expand" and len(before.inputs) == 1:  # as `F.l1_loss` does
        before, reader = captured.graph.by_id[before.inputs[0]], before
    if before.shape not in ((count,), (count, 1)):
        return None
    loss = _of_loss(captured.graph)
    if op.id not in loss or not used_once(captured, before, reader, loss):
        return None
    column = len(before.shape) == 2
    kept = _averaged(captured, op, before.shape)
    if not kept or not all(_of_pairs(d, targets=int(column)) for d in kept):
        return None
    return {"count": float(count), "column": float(column)}


def _of_loss(graph: Graph) -> set[int]:
    """Return the operations of the loss.

    Where a forward was not seen, as that of a critic whose actor's step came between it and its
    backward, those are what neither reads parameters nor leads to one that does.
    """
    if any(op.module is not None for op in graph):
        return {op.id for op in graph if op.in_loss}
    feeding: set[int] = set()
    for op in reversed(graph.operations):
        if op.parameters or op.id in feeding:
            feeding.update((op.id, *op.inputs))
    return {op.id for op in graph} - feeding


def _averaged(captured: CapturedGraph, first: Operation, each: tuple[int, ...]) -> list[Tensor]:
    """Return what is kept of the differences of which a loss averages a function, if it does.

    Args:
        captured: The graph, before backward frees it.
        first: The differences.
        each: The shape of the predictions.
    """
    graph = captured.graph
    states = {first.id: _DIFFERENCE}
    ends: set[int] = set()
    kept: list[Tensor | None] = []
    choices: list[Tensor] = []
    for op in graph:
        entered = [states[i] for i in op.inputs if i in states]
        ended = _ends(graph, op) if entered else not ends.isdisjoint(op.inputs)
        if not entered or ended:
            if _SCALED in entered:
                return []
            if ended:
                ends.add(op.id)
            if op.kind == "linalg_vector_norm" and entered:
                kept.append(captured.saved(op, "self"))
            continue
        constant = op.kind in ("mask", "scale") and _one_number(captured, op, each)
        choice = None if constant else _choice(captured, op)
        if len(entered) < len(op.inputs) or op.parameters:
            beside = _beside(captured, op, states, ends, each)
            state = _joined(op, entered[0]) if beside else None
        elif constant:
            state = max(entered)
        else:
            state = _state(op, entered, chooses=choice is not None)
        if state is None:
            return []
        states[op.id] = state
        if choice is not None:
            choices.append(choice)
        elif op.kind not in _AS_IT_IS | {"shift"}:
            read = zip(captured.edges[op.id], ("self", "other"), strict=False)
            kept += [
                captured.saved(op, name)
                for edge, name in read
                if edge is not None and states.get(edge) == _DIFFERENCE
            ]
    found = [t for t in kept if t is not None]
    if not found or not all(readable(t) and t.shape == first.shape for t in (*found, *choices)):
        return []
    return found if all(_told_by(choice, found[0]) for choice in choices) else []


def _beside(
    captured: CapturedGraph,
    op: Operation,
    states: Mapping[int, int],
    ends: set[int],
    each: tuple[int, ...],
) -> bool:
    """Whether what joins a table is one number for each prediction, or for all of them."""
    edges, node = captured.edges[op.id], captured.nodes[op.id]
    joins = [i for i, edge in enumerate(edges) if edge not in states]
    if len(joins) != 1 or (base_name(op.name) == "Div" and joins != [1]):
        return False
    function, number = node.next_functions[joins[0]]
    if function is None or edges[joins[0]] in ends:
        return False
    shape = shape_of(function, number)
    return shape == each or prod(shape) == 1


def _joined(op: Operation, entered: int) -> int | None:
    """Return what a table becomes with what goes with its predictions."""
    if op.kind in _PRODUCTS:
        return _SCALED if entered <= _SCALED else _MOVED
    return _MOVED if op.kind in _SUMS and entered >= _SIZE else None


def _one_number(captured: CapturedGraph, op: Operation, each: tuple[int, ...]) -> bool:
    """Whether the data of a factor is one number, written as often as there are predictions."""
    edges = captured.edges[op.id]
    name = "other" if edges[0] is not None else "self"
    data = captured.saved(op, name)
    if data is None or not readable(data) or tuple(data.shape) not in (each, ()):
        return False
    return bool(number((data == data.flatten()[0]).all()))


def _state(op: Operation, entered: list[int], *, chooses: bool) -> int | None:
    """Return what an operation makes of what it reads; None where that is not known."""
    state = max(entered)
    if op.kind == "shift":  # by one margin for all pairs, or by data of each: it is not told
        return state if state == _DIFFERENCE else _MOVED if state >= _SIZE else None
    if op.kind in _AS_IT_IS:
        return None if op.kind == "scale" and "scalar" not in op.attributes else state
    if chooses:
        return max(state, _SIZE)
    shrinks = op.kind == "pow" and op.attributes.get("exponent", 2) < 1
    known = op.kind in _SIZES or (op.kind in _OF_SIZES and state == _SIZE)
    return _SIZE if known and state != _MOVED and not shrinks else None


def _ends(graph: Graph, op: Operation) -> bool:
    """Whether an operation ends in one number, of all rows at once or of one after the other."""
    if op.kind not in _ENDS or op.shape == ():
        return op.kind in _ENDS
    after = graph.consumers[op.id]
    rows = op.kind != "linalg_vector_norm" and max(op.shape) == prod(op.shape)
    return rows and len(after) == 1 and after[0].kind in ("mean", "sum") and after[0].shape == ()


def _choice(captured: CapturedGraph, op: Operation) -> Tensor | None:
    """Return the data that chooses among entries, or weighs them."""
    if op.kind == "where":
        return captured.saved(op, "condition")
    if op.kind != "mask":
        return None
    other = captured.saved(op, "other")
    return captured.saved(op, "self") if other is None else other


def _told_by(choice: Tensor, difference: Tensor) -> bool:
    """Whether a difference's own sign or size is all that a choice of two goes by."""
    with torch.no_grad():
        high = choice == choice.amax()
        two = number((high | (choice == choice.amin())).all())
        return bool(two) and any(
            number(a.amax()) <= number(b.amin())
            for values in (difference, difference.abs())
            for a, b in ((values[high], values[~high]), (values[~high], values[high]))
            if a.numel() and b.numel()
        )


def _of_pairs(table: Tensor, *, targets: int) -> bool:
    """Whether a table is one number of each row and one of each column, of targets that differ.

    Args:
        table: Differences of predictions and targets.
        targets: The axis along which the targets lie.
    """
    with torch.no_grad():
        values = table.double()
        close = ROUNDING * torch.finfo(table.dtype).eps * values.abs().amax()
        rows, columns = values[:, :1] - values[:1, :1], values[:1]
        additive = ((values - rows - columns).abs() <= close).all()
        of_targets = values[:1] if targets else values[:, :1]
        differ = of_targets.amax() - of_targets.amin() > MARGIN * close
        return bool(number(additive & differ))
