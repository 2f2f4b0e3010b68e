"""Size of a parameter."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, l2_norm, metric


@metric(Tap.WEIGHT, unit="weight")
def weight_norm(weight: Tensor) -> Tensor:
    """L2 norm of a parameter.

    Args:
        weight: A parameter, any shape and dtype.

    Returns:
        Scalar, float64, on the device of `weight`.
    """
    return l2_norm(weight)
