"""Entries far out in a gradient's distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled

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
    values = sampled(gradient)
    deviation = (values - values.mean()).abs()
    return (deviation > SIGMAS * values.std(correction=0)).to(torch.float64).mean()
