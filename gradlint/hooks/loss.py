"""What entered the loss: read from the loss's own node, or from the call that made it."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.graph import LOSSES, STRUCTURAL, Graph, Operation
from gradlint.hooks.differences import compared
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.tensor_facts import number, tensor_facts
from gradlint.hooks.written import MOVES, data_of
from gradlint.trace import LossFacts, TensorFacts

_BY_NAME = {
    "crossentropyloss": "cross_entropy",
    "cross_entropy": "cross_entropy",
    "nllloss": "nll",
    "nll_loss": "nll",
    "bceloss": "bce",
    "binary_cross_entropy": "bce",
    "bcewithlogitsloss": "bce_with_logits",
    "binary_cross_entropy_with_logits": "bce_with_logits",
    "mseloss": "mse",
    "mse_loss": "mse",
    "l1loss": "l1",
    "l1_loss": "l1",
    "smoothl1loss": "smooth_l1",
    "smooth_l1_loss": "smooth_l1",
    "huberloss": "huber",
    "huber_loss": "huber",
    "kldivloss": "kl_div",
    "kl_div": "kl_div",
}


def kind_of_callable(loss_fn: Any) -> str:
    """Return the kind of a loss module or function, "other" where it is nobody's we know."""
    name = type(loss_fn).__name__ if isinstance(loss_fn, nn.Module) else ""
    name = name or str(getattr(loss_fn, "__name__", ""))
    home = str(getattr(loss_fn, "__module__", "") or type(loss_fn).__module__)
    if not home.startswith("torch"):
        return "other"
    return _BY_NAME.get(name.lower(), "other")


def from_call(
    loss_fn: Any, outputs: Any, targets: Any, *, entries: bool = True
) -> LossFacts | None:
    """Return the facts of a loss about to be called; None where there is nothing to say.

    Without `entries` no entry of a tensor is read: shapes and dtypes alone are known.
    """
    kind = kind_of_callable(loss_fn)
    if kind == "other" or not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return None
    describe = tensor_facts if entries else _outside_of
    low, high = _row_sums(kind, outputs) if entries else (None, None)
    return LossFacts(
        kind=kind,
        reduction=str(getattr(loss_fn, "reduction", "mean")),
        output=describe("output", outputs),
        target=describe("target", targets),
        classes=_classes(kind, outputs),
        ignore_index=getattr(loss_fn, "ignore_index", -100 if kind in _CLASS else None),
        row_sum_min=low,
        row_sum_max=high,
    )


def _outside_of(name: str, tensor: Tensor) -> TensorFacts:
    return TensorFacts(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def from_error(error: BaseException | None) -> LossFacts | None:
    """Return the facts of the loss of torch's that raised `error`, wherever it was called.

    The model itself may have called it, or a function of the user's: the outermost loss
    function among the frames that the exception passed through is the one. Of tensors on an
    accelerator no entry is read: what a kernel asserted, or waits for, is not to be met there.
    """
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != functional.__file__:
                continue
            called = frame.f_locals
            outputs, targets = called.get("input"), called.get("target")
            function = getattr(functional, frame.f_code.co_name, None)
            if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
                continue
            entries = all(t.device.type == "cpu" for t in (outputs, targets))
            found = from_call(function, outputs, targets, entries=entries)
            if found is not None:
                ignored = called.get("ignore_index", found.ignore_index)
                return replace(
                    found, reduction=str(called.get("reduction", "mean")), ignore_index=ignored
                )
        error = error.__cause__
    return None


_CLASS = ("cross_entropy", "nll")


def _classes(kind: str, output: Tensor) -> int | None:
    if kind not in _CLASS or output.ndim == 0:
        return None
    return int(output.shape[1] if output.ndim > 1 else output.shape[0])


def _row_sums(kind: str, output: Tensor) -> tuple[float | None, float | None]:
    if kind not in (*_CLASS, "ctc") or output.ndim < 2 or output.numel() == 0:
        return None, None
    values = output.detach().to(torch.float64)
    classes = -1 if kind == "ctc" else 1
    sums = (values if kind == "cross_entropy" else values.exp()).sum(dim=classes)
    return number(sums.amin()), number(sums.amax())


_END = 24
"""Nodes that tell a loss from another one."""


def end_of(loss: Tensor) -> tuple[object, ...]:
    """Return what tells a loss from another one: the last operations, and what they read.

    Two batches of one training have the same, two heads and two kinds of loss do not.
    """
    found: list[object] = []
    seen = {loss.grad_fn}
    waiting: list[Any] = [loss.grad_fn]
    while waiting and len(found) < _END:
        node = waiting.pop(0)
        if node is None:
            continue
        variable = getattr(node, "variable", None)
        found.append(node.name() if variable is None else id(variable))
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return tuple(found)


def from_graph(
    captured: CapturedGraph, outputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[LossFacts]:
    """Return the facts of every loss in the graph.

    Args:
        captured: The graph, before backward frees it.
        outputs: The model's output tensors, to name what entered the loss.
        targets: The batch's target tensors.
    """
    found = [
        facts
        for op in captured.graph
        if op.kind in LOSSES
        for facts in [_from_operation(captured, op, outputs)]
        if facts is not None
    ]
    return found or _by_hand(captured, outputs, targets)


def _from_operation(
    captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]
) -> LossFacts | None:
    kind = op.kind
    entered = captured.saved(op, "log_probs" if kind == "ctc" else "self")
    target = captured.saved(op, "target")
    if entered is not None and target is not None:
        target = _unrepeated(target, entered)
    before = captured.graph.behind(op, lambda o: o.kind in STRUCTURAL)
    shown = entered
    softmaxed = any(o.kind == "log_softmax" and o.in_loss for o in before)
    if kind == "nll" and softmaxed and _normalized(entered):
        kind = "cross_entropy"
        logits = [
            o
            for o in _entering(captured, op, outputs)
            if entered is not None and o.numel() == entered.numel()
        ]
        shown = logits[0].detach() if len(logits) == 1 else entered
    low, high = _row_sums(kind, shown) if shown is not None else (None, None)
    return LossFacts(
        kind=kind,
        reduction=str(op.attributes.get("reduction", "mean")),
        output=tensor_facts("output", shown) if shown is not None else None,
        target=tensor_facts("target", target) if target is not None else None,
        classes=_classes(kind, entered) if entered is not None else None,
        ignore_index=op.attributes.get("ignore_index"),
        operation=op.id,
        row_sum_min=low,
        row_sum_max=high,
    )


def _unrepeated(target: Tensor, entered: Tensor) -> Tensor:
    """Return what a loss repeated along one axis to fit an output that was not repeated."""
    if not 1 < target.ndim == entered.ndim or target.shape != entered.shape:
        return target
    if target.stride(-1) == 0 < target.stride(0) and entered.stride(-1) != 0:
        return target[..., :1] if target.shape[-1] > 1 else target
    square = target.ndim == 2 and target.shape[0] == target.shape[1] > 1
    repeated = square and target.stride(0) == 0 < target.stride(1) and 0 not in entered.stride()
    return target[0] if repeated else target


def _normalized(entered: Tensor | None) -> bool:
    """Whether a log-softmax ran over the axis of the classes; over another, rows do not sum to 1.

    Where the values cannot be read it is taken to have done so.
    """
    low, high = _row_sums("nll", entered) if entered is not None else (None, None)
    return low is None or high is None or not (low < 0.9 or high > 1.1)


def _by_hand(
    captured: CapturedGraph, outputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[LossFacts]:
    """Recognize a difference that is squared or whose size is taken, and soft cross-entropy."""
    graph = captured.graph
    for op in graph:
        if not op.in_loss:
            continue
        reduction = _reduction(graph, op)
        if op.kind in ("sub", "shift") and op.missing:
            following = graph.ahead(op, lambda o: o.kind in STRUCTURAL)
            kinds = {o.kind for o in following}
            kind = "mse" if kinds & {"pow", "square"} else "l1" if "abs" in kinds else None
            pair = _pair(captured, op, outputs, targets) if kind is not None else None
            if kind is not None and pair is not None:
                return [_facts(kind, reduction, *pair, op)]
        entering = _entering(captured, op, outputs) if op.kind == "log_softmax" else []
        if entering:
            target = targets[0] if len(targets) == 1 else None
            if target is not None and target.shape == entering[0].shape:
                target = _compared_with(captured, op, target)
            return [_facts("cross_entropy", reduction, entering[0], target, op)]
    return []


def _compared_with(captured: CapturedGraph, op: Operation, target: Tensor) -> Tensor:
    """Return the probabilities that a log-softmax is multiplied by.

    They are the batch's targets where those are probabilities, whatever weighs the classes, and
    what was made of them where they are not: a softmax of grades, say.
    """
    if abs(number(target.float().sum()) * target.shape[-1] / target.numel() - 1) < 0.05:
        return target
    following = captured.graph.ahead(op, lambda o: o.kind in MOVES or o.kind == "neg")
    found = [t for o in following if (t := data_of(captured, o)) is not None]
    if len(found) != 1 or tuple(found[0].shape) != op.shape:
        return target
    return found[0] if number(found[0].sum()) >= 0 else -found[0]


def _entering(captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs that `op` is made of, the nearest first.

    Those of another model, called in between, are not: a critic's, a teacher's.
    """
    nodes = [captured.nodes.get(o.id) for o in captured.graph.ancestors(op)]
    return [o for node in nodes if node is not None for o in outputs if o.grad_fn is node]


def _pair(
    captured: CapturedGraph, op: Operation, outputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """Return what a difference compares: what the caller knows of it, or what the graph does."""
    if not targets:
        return compared(captured, op, outputs)
    if len(outputs) != 1 or len(targets) != 1:
        return None
    if _are_compared(op, outputs[0], targets[0]):
        return outputs[0], targets[0]
    return compared(captured, op, outputs)  # one-hot rows of labels, say


def _are_compared(op: Operation, output: Tensor, target: Tensor) -> bool:
    """Whether a difference has the shape that output and targets make, or their entries."""
    if math.prod(op.shape) == target.numel() or not op.shape:
        return True
    rank = len(op.shape)
    shapes = [(1,) * (rank - t.ndim) + tuple(t.shape) for t in (output, target)]
    return [{a, b} - {1} for a, b in zip(*shapes, strict=False)] == [{n} - {1} for n in op.shape]


def _facts(
    kind: str, reduction: str, output: Tensor, target: Tensor | None, op: Operation
) -> LossFacts:
    low, high = _row_sums(kind, output)
    facts = LossFacts(
        kind=kind,
        reduction=reduction,
        output=tensor_facts("output", output),
        classes=_classes(kind, output),
        operation=op.id,
        row_sum_min=low,
        row_sum_max=high,
    )
    return facts if target is None else replace(facts, target=tensor_facts("target", target))


def _reduction(graph: Graph, op: Operation) -> str:
    """Return "sum" if nothing between `op` and the end divides by the batch, else "mean"."""
    kinds = [o.kind for o in graph.descendants(op)]
    divides = any(kind in ("mean", "div", "scale") for kind in kinds)
    return "sum" if "sum" in kinds and not divides else "mean"
