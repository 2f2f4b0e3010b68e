"""How sharp attention is."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric

LEAST = 8
"""Keys a query has to see: among few, most of the weight on one is nothing special."""


@metric(Tap.ATTENTION, unit="1")
def attention_peak(weights: Tensor) -> Tensor:
    r"""Median over the queries of the largest attention weight.

    Rows in which the query sees fewer than `LEAST` keys (the first of a causal mask) are left
    out; a key is seen if any sample or head gives it weight.

    Args:
        weights: Attention weights, of shape ``(*, Q, K)``; each row sums to 1.

    Returns:
        Scalar in ``[0, 1]``, float64, on the device of `weights`; NaN if no row counts.

    Example:
        >>> attention_peak(torch.eye(8, dtype=torch.float64) * 0.2 + 0.1)
        tensor(0.3000, dtype=torch.float64)

    Source:
        Vaswani et al. (2017), "Attention is all you need", section 3.2.1: large products push
        the softmax into regions of small gradients.
    """
    weights = weights.detach().to(torch.float64)
    rows = weights.reshape(-1, *weights.shape[-2:])  # (*, Q, K)
    seen = (rows > 0).any(dim=0).sum(dim=-1) >= LEAST  # (Q,)
    peaks = rows.amax(dim=-1)[:, seen].flatten()
    if peaks.numel() == 0:
        return torch.full((), float("nan"), dtype=torch.float64, device=weights.device)
    return peaks.median()
