"""Size of an optimizer step against the parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, dense, l2_norm, metric


@metric(Tap.UPDATE, unit="1")
def update_to_weight_ratio(before: Tensor, after: Tensor) -> Tensor:
    r"""Ratio $\|W_{after} - W_{before}\| / \|W_{before}\|$ of one optimizer step.

    The true update, whatever the optimizer did: momentum, Adam's scaling, weight decay.

    Args:
        before: The parameter before the step, any shape.
        after: The parameter after it.

    Returns:
        Scalar, float64; infinite for a parameter that was zero and moved.

    Source:
        CS231n notes, "Neural networks part 3": about 1e-3 is usual.
    """
    moved = dense(after).to(torch.float64) - dense(before).to(torch.float64)
    return l2_norm(moved) / l2_norm(before)
