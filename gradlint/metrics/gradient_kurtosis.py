"""Weight of the tails of a gradient's distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, centered, metric, sampled


@metric(Tap.WEIGHT_GRAD, unit="1")
def gradient_kurtosis(gradient: Tensor) -> Tensor:
    r"""Kurtosis $E[(g-\bar g)^4] / E[(g-\bar g)^2]^2$ of a gradient's entries.

    3 for a normal distribution, 6 for a Laplace distribution.

    Args:
        gradient: A parameter's ``.grad``, any shape.

    Returns:
        Scalar, at least 1, float64; NaN for a constant gradient and an empty one.

    Source:
        Reference [0], section 4.4.4: gradients should look bell-shaped.
    """
    deviation = centered(sampled(gradient))
    # Squares of tiny gradients would be lost even in float64; the 0 only serves empty ones.
    deviation = deviation / torch.cat([deviation.abs(), deviation.new_zeros(1)]).amax()
    return deviation.pow(4).mean() / deviation.square().mean().square()
