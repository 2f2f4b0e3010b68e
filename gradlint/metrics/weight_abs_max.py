"""Largest entry of a parameter at initialization."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled


@metric(Tap.INITIAL_WEIGHT, unit="weight")
def weight_abs_max(weight: Tensor) -> Tensor:
    """Largest absolute entry of a parameter before training.

    Args:
        weight: A parameter, any shape, not empty.

    Returns:
        Scalar, float64.
    """
    return sampled(weight).abs().amax()
