"""Size of a parameter's entries at initialization."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled


@metric(Tap.INITIAL_WEIGHT, unit="weight")
def weight_rms(weight: Tensor) -> Tensor:
    """Root mean square over all entries of a parameter before training.

    Args:
        weight: A parameter, any shape.

    Returns:
        Scalar, float64.
    """
    return sampled(weight).square().mean().sqrt()
