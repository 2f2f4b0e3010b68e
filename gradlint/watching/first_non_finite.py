"""The first number that is not finite, found in what a step still has at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradlint.engine import Observer
from gradlint.graph import Graph, Operation
from gradlint.hooks.calls import Calls
from gradlint.hooks.graph import CapturedGraph, capture
from gradlint.hooks.ranks import here
from gradlint.hooks.tensor_facts import number
from gradlint.probes.non_finite import CAUSES, in_backward
from gradlint.readout import Unread
from gradlint.trace import Event
from gradlint.watching.plan import Layout

_DATA = "entries of the batch"

_SAVED = ("self", "result", "other", "input", "mat1", "mat2", "exponent", "output")


def in_loss(observer: Observer, loss: Tensor, step: int, value: float) -> Event:
    """Return where a loss that is not finite comes from, before its backward frees the graph.

    Args:
        observer: Knows modules and parameters.
        loss: The loss.
        step: Number of the step.
        value: Value of the loss.
    """
    kind = "nan" if math.isnan(value) else "inf"
    spoiled = _spoiled_parameter(observer)
    if spoiled is not None and step > 1:
        module, path, what = spoiled
        detail = {"phase": "update", "operation": "optimizer step", "value": what,
                  "fed_by": f"entries of {path}"}  # fmt: skip
        return Event("non-finite", step - 1, module, detail)
    detail = {"phase": "forward", "operation": "", "value": kind, "fed_by": ""}
    place: str | None = None
    if loss.grad_fn is not None:
        names = {id(p): path for path, p in observer.parameters.items()}
        calls = observer.calls if observer.calls.finished else Calls()
        captured = capture(loss, calls, observer.modules, names)
        op, fed, what = _first(captured)
        if op is not None and fed == _DATA:
            detail = {"phase": "input", "operation": "input", "value": what, "fed_by": _DATA}
        elif op is not None:
            place = op.site.partition(":")[0] or _nearest(captured.graph, op)
            detail = {
                "phase": "loss" if op.in_loss else "forward",
                "operation": op.kind,
                "value": what or kind,
                "fed_by": fed,
            }
    return Event("non-finite", step, place, detail)


def _first(captured: CapturedGraph) -> tuple[Operation | None, str, str]:
    """Return the first operation, in forward order, with a result that is not finite."""
    for op in captured.graph:
        for name in ("result", "output"):
            result = captured.saved(op, name)
            if _bad(result):
                return op, _cause(captured, op), _kind(result)
        for name in _SAVED:
            entered = captured.saved(op, name)
            if entered is None or not entered.is_floating_point() or entered.numel() == 0:
                continue
            if not op.inputs and name != "result" and _not_finite(entered):
                return op, _DATA, _kind(entered)
            if _bad(entered) and op.inputs:
                before = captured.graph.by_id[op.inputs[0]]
                return before, _cause(captured, before), _kind(entered)
            made = _made(op.kind, entered)
            if made and name in ("self", "input"):
                return op, CAUSES.get(op.kind, "values out of range"), made
    return None, "", ""


def _cause(captured: CapturedGraph, op: Operation) -> str:
    return CAUSES.get(op.kind, f"{op.kind} of large numbers")


def _made(kind: str, entered: Tensor) -> str:
    """Return what an operation makes of finite numbers, if that is not finite."""
    smallest = number(entered.detach().amin())
    if kind in ("log", "log2", "log10") and smallest <= 0:
        return "nan" if smallest < 0 else "inf"
    if kind in ("sqrt", "rsqrt") and smallest < 0:
        return "nan"
    if kind in ("rsqrt", "reciprocal") and bool(number((entered == 0).any())):
        return "inf"
    return ""


def _bad(tensor: Tensor | None) -> bool:
    if tensor is None or not tensor.is_floating_point() or tensor.numel() == 0:
        return False
    # Minus infinity is a mask's; it is no fault by itself.
    wrong = torch.isnan(tensor.detach()) | torch.isposinf(tensor.detach())
    return bool(number(wrong.any()))


def _not_finite(tensor: Tensor) -> bool:
    """Whether data has an entry that is not finite; minus infinity is no mask there."""
    return not bool(number(torch.isfinite(tensor.detach()).all()))


def _kind(tensor: Tensor | None) -> str:
    if tensor is None:
        return ""
    return "nan" if bool(number(torch.isnan(tensor.detach()).any())) else "inf"


def _nearest(graph: Graph, op: Operation) -> str | None:
    """Return the module of the nearest weight layer in front of an operation."""
    stack, seen = [op], set()
    while stack:
        current = stack.pop(0)
        if current.id in seen:
            continue
        seen.add(current.id)
        if current.parameters:
            return current.parameters[0].rpartition(".")[0]
        stack += [graph.by_id[i] for i in current.inputs]
    return None


def _spoiled_parameter(observer: Observer) -> tuple[str, str, str] | None:
    for path, parameter in observer.parameters.items():
        if parameter.is_floating_point() and parameter.numel() and parameter.device.type == "cpu":
            part = here(parameter.detach())
            total = number(part.sum())
            if not math.isfinite(total):
                wrong = torch.isnan(part).any()
                what = "nan" if bool(number(wrong)) else "inf"
                if bool(number(torch.isfinite(part).all())):
                    continue  # the sum overflowed, the entries did not
                return path.rpartition(".")[0], path, what
    return None


def in_gains(observer: Observer, unread: Unread, norm: float) -> Event:
    """Return where the gradient of a step stopped being finite, by its operations' norms."""
    found: Mapping[str, Any] = in_backward(unread.graph, observer.last_gains) or {}
    return _backward(unread.step or 1, norm, found)


def in_row(step: int, layout: Layout, values: list[float]) -> Event:
    """Return where the gradient of a step stopped being finite, by its modules' samples.

    The last module, in the order of the forward, whose gradient is not finite got a finite
    one from the module behind it; the culprit is that one.
    """
    ordered = _by_depth(layout, values, "activation_grad_norm")
    bad = [path for path, value in ordered.items() if not math.isfinite(value)]
    found: dict[str, Any] = {"value": "nan"}
    if bad:
        paths = [*ordered]
        after = paths[paths.index(bad[-1]) + 1 :]
        found["module"] = after[0] if after else bad[-1]
        found["operation"] = "backward"
        found["fed_by"] = f"the gradient of {found['module']}"
    elif not ordered:  # activations were not sampled: the last weight with such a gradient
        weights = _by_depth(layout, values, "gradient_norm")
        bad = [path for path, value in weights.items() if not math.isfinite(value)]
        if bad:
            found["module"] = bad[-1].rpartition(".")[0]
    return _backward(step, math.nan, found)


def _by_depth(layout: Layout, values: list[float], metric: str) -> dict[str, float]:
    """Return the values of a metric by path, in the order of the forward."""
    found = [
        (site.depth, site.path, value)
        for (name, site), value in zip(layout.columns, values, strict=True)
        if name == metric
    ]
    return {path: value for _, path, value in sorted(found, key=lambda seen: seen[0])}


def _backward(step: int, norm: float, found: Mapping[str, Any]) -> Event:
    detail = {
        "phase": "backward",
        "operation": "",
        "value": "nan" if math.isnan(norm) else "inf",
        "fed_by": "",
        **found,
    }
    module = detail.pop("module", None)
    return Event("non-finite", step, module, detail)
