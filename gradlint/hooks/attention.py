"""Attention weights, from what the nodes of the graph saved for their own backward."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.graph import STRUCTURAL, Operation
from gradlint.hooks.graph import CapturedGraph

_ENTRIES = 1 << 20
"""Attention weights read of one operation: enough samples and heads for a median."""


def attention_weights(captured: CapturedGraph, op: Operation) -> Tensor | None:
    """Return the attention weights of `op`, of shape ``(*, Q, K)``.

    `op` is a softmax whose result weighs another signal, or fused attention, of which
    the weights are computed again. None for anything else, and where they cannot be told.
    """
    try:
        with torch.no_grad():
            if op.kind == "attention":
                return _fused(captured, op)
            return _by_hand(captured, op)
    except RuntimeError:  # shapes that only the fused kernel understands
        return None


def _by_hand(captured: CapturedGraph, op: Operation) -> Tensor | None:
    axis = op.attributes.get("dim")
    if op.kind != "softmax" or op.in_loss or not isinstance(axis, int):
        return None
    following = captured.graph.ahead(op, lambda o: o.kind in STRUCTURAL | {"scale"})
    if not following or any(o.kind != "matmul" or len(o.inputs) < 2 for o in following):
        return None
    weights = captured.saved(op, "result")
    if weights is None or weights.ndim < 2:
        return None
    weights = weights.detach().movedim(axis, -1)
    if weights.ndim == 2:
        return weights
    return _some(weights.reshape(-1, *weights.shape[-2:]))


def _some(weights: Tensor) -> Tensor:
    """Return the first samples and heads of ``(*, Q, K)``, as many as need be."""
    return weights[: max(1, _ENTRIES // max(1, weights.shape[-2] * weights.shape[-1]))]


def _fused(captured: CapturedGraph, op: Operation) -> Tensor | None:
    query, key = captured.saved(op, "query"), captured.saved(op, "key")
    if query is None or key is None or query.ndim != 4 or key.ndim != 4:
        return None
    node = captured.nodes[op.id]
    positions = query.shape[-2] * key.shape[-2]
    count = max(1, _ENTRIES // max(1, positions * query.shape[1]))
    query, key = query[:count].detach().float(), key[:count].detach().float()
    if key.shape[1] != query.shape[1]:  # several heads share their keys
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scale = getattr(node, "_saved_scale", None)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    mask = captured.saved(op, "attn_mask")
    mask = captured.saved(op, "attn_bias") if mask is None else mask
    if mask is not None:
        scores = scores + (mask[:count] if mask.ndim == 4 and mask.shape[0] > 1 else mask)
    if getattr(node, "_saved_is_causal", False):
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    weights: Tensor = scores.softmax(dim=-1)
    return weights.flatten(0, 1)
