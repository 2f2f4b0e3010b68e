"""Entries far out in a gradient's distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, centered, metric, sampled

SIGMAS = 6.0
"""Two in a billion entries of a normal distribution lie farther out (rules.md, GL304)."""


@metric(Tap.WEIGHT_GRAD, unit="1")
def gradient_tail_share(gradient: Tensor) -> Tensor:
    """Share of a gradient's entries farther than six standard deviations from their mean.

    Args:
        gradient: A parameter's ``.grad``, any shape.

    Returns:
        Scalar in ``[0, 1]``, float64.
    """
    deviation = centered(sampled(gradient))
    sigma = deviation.square().mean().sqrt()
    return (deviation.abs() > SIGMAS * sigma).to(torch.float64).mean()
