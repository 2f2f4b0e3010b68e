"""Largest activation of a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, dense, metric


@metric(Tap.WHOLE_ACTIVATION, unit="activation")
def activation_abs_max(activation: Tensor) -> Tensor:
    """Largest absolute entry of an activation, over every entry (no sample).

    Args:
        activation: Output of a module, any shape, any floating dtype.

    Returns:
        Scalar, float64, on the device of `activation`; NaN if any entry is NaN, infinite
        if any is infinite; 0 if it is empty.
    """
    values = dense(activation)
    if values.numel() == 0:
        return torch.zeros((), dtype=torch.float64, device=values.device)
    return values.abs().amax().to(torch.float64)
