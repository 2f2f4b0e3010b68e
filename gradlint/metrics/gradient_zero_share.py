"""Exact zeros in a parameter's gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled


@metric(Tap.WEIGHT_GRAD, unit="1")
def gradient_zero_share(gradient: Tensor) -> Tensor:
    """Share of a gradient's entries that are exactly zero.

    Args:
        gradient: A parameter's ``.grad``, any shape.

    Returns:
        Scalar in ``[0, 1]``, float64.

    Source:
        Reference [0], section 4.4.4: a histogram should not show a mass at zero.
    """
    return (sampled(gradient) == 0).to(torch.float64).mean()
