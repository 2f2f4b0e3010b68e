"""What an activation returned, from what its node saved for its own backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.graph import Operation
from gradlint.hooks.attributes import signed
from gradlint.hooks.graph import CapturedGraph


def _again(function: Callable[..., Tensor], **options: str) -> Callable[[Tensor, Any], Tensor]:
    """Return a function that computes an activation again, with its node's own options."""

    def compute(before: Tensor, node: Any) -> Tensor:
        found = {name: getattr(node, f"_saved_{saved}") for name, saved in options.items()}
        if "dim" in found:
            found["dim"] = signed(found["dim"])
        return function(before, **found)

    return compute


def _clamped(before: Tensor, node: Any) -> Tensor:
    low = getattr(node, "_saved_min_val", getattr(node, "_saved_min", None))
    high = getattr(node, "_saved_max_val", getattr(node, "_saved_max", None))
    low = getattr(node, "_saved_threshold", low)
    return before.clamp(low, high)


_AGAIN: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "relu": _clamped,
    "relu6": _clamped,
    "hardtanh": _clamped,
    "leaky_relu": _again(nn.functional.leaky_relu, negative_slope="negative_slope"),
    "elu": _again(torch.ops.aten.elu, alpha="alpha", scale="scale", input_scale="input_scale"),
    "selu": _again(torch.ops.aten.elu, alpha="alpha", scale="scale", input_scale="input_scale"),
    "celu": _again(nn.functional.celu, alpha="alpha"),
    "gelu": _again(nn.functional.gelu, approximate="approximate"),
    "silu": _again(nn.functional.silu),
    "mish": _again(nn.functional.mish),
    "softplus": _again(nn.functional.softplus, beta="beta", threshold="threshold"),
    "hardswish": _again(nn.functional.hardswish),
    "hardsigmoid": _again(nn.functional.hardsigmoid),
    "logsigmoid": _again(nn.functional.logsigmoid),
    "glu": _again(nn.functional.glu, dim="dim"),
    "prelu": _again(torch.ops.aten._prelu_kernel, weight="weight"),
}
"""Activations whose node saves what entered instead of what came out."""


def activation_of(captured: CapturedGraph, op: Operation) -> Tensor | None:
    """Return what the activation `op` returned; None where it cannot be told safely."""
    activation = captured.saved(op, "result")
    if activation is not None:
        return activation.detach()
    before = captured.saved(op, "self")
    compute = _AGAIN.get(op.kind)
    if before is None or compute is None:
        return None
    try:
        with torch.no_grad():
            return compute(before.detach(), captured.nodes[op.id])
    except (AttributeError, RuntimeError):  # saved otherwise on this version, or freed
        return None
