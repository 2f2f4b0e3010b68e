"""Spread of a weight against its fan in."""

from __future__ import annotations

import math

from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.base import Tap, metric, sampled, spread


@metric(Tap.INITIAL_WEIGHT, unit="1")
def init_gain(weight: Tensor) -> Tensor:
    r"""Standard deviation of a weight times $\sqrt{\text{fan in}}$.

    Kaiming initialization gives √2 (for ReLU), LeCun 1, Xavier 1 where fan in and fan out
    agree, torch's default for `Linear` and `Conv` 1/√3.

    Args:
        weight: A weight of shape ``(U, F, *)``: units, inputs, receptive field.

    Returns:
        Scalar, dimensionless, float64.

    Raises:
        MetricError: If `weight` has fewer than two dimensions.

    Source:
        He et al. (2015), section 2.2; Glorot & Bengio (2010), equation 12; reference [0],
        section 4.3.
    """
    if weight.ndim < 2:
        raise MetricError(f"init_gain needs a weight of shape (U, F, *), got {tuple(weight.shape)}")
    fan_in = weight.numel() // weight.shape[0]
    return spread(sampled(weight)) * math.sqrt(fan_in)
