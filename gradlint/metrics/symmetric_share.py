"""Units that are copies of each other."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.base import Tap, dense, metric


@metric(Tap.WEIGHT_AND_GRAD, unit="1")
def symmetric_share(weight: Tensor, gradient: Tensor) -> Tensor:
    """Share of units whose weights and whose gradient both equal another unit's, bit for bit.

    Such units compute the same and are updated the same: they stay equal for ever under
    any optimizer that treats entries alike. Zero-initialized last layers do not count: their
    weights agree, their gradients differ.

    Args:
        weight: A weight of shape ``(U, *)``, units first.
        gradient: Its gradient, of the same shape.

    Returns:
        Scalar in ``[0, 1]``, float64, on the device of `weight`.

    Raises:
        MetricError: If `weight` has fewer than two dimensions.

    Example:
        >>> w = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0], [3.0, 4.0]])
        >>> symmetric_share(w, torch.zeros(4, 2))
        tensor(0.5000, dtype=torch.float64)

    Source:
        Reference [2], section 2.4; reference [4], problem 7.15.
    """
    if weight.ndim < 2:
        raise MetricError(f"symmetric_share needs shape (U, *), got {tuple(weight.shape)}")
    rows = torch.cat([dense(t).reshape(weight.shape[0], -1) for t in (weight, gradient)], dim=1)
    # Equal rows have equal dot products with any vector; sorting those beats sorting rows.
    probe = torch.sin(torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=torch.float64))
    marks, order = (rows.to(torch.float64) * probe).sum(dim=1).sort()
    ordered = rows[order]
    equal = (ordered[1:] == ordered[:-1]).all(dim=1) & (marks[1:] == marks[:-1])
    no = equal.new_zeros(1)
    twin = torch.cat([no, equal]) | torch.cat([equal, no])
    return twin.to(torch.float64).mean()
