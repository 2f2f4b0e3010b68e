"""Spread of a parameter at initialization."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled, spread


@metric(Tap.INITIAL_WEIGHT, unit="weight")
def weight_std(weight: Tensor) -> Tensor:
    """Standard deviation over all entries of a parameter before training.

    Args:
        weight: A parameter, any shape.

    Returns:
        Scalar, float64 (population, not sample).
    """
    return spread(sampled(weight))
