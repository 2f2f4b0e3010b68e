"""Weight of the tails of a gradient's distribution."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled


@metric(Tap.WEIGHT_GRAD, unit="1")
def gradient_kurtosis(gradient: Tensor) -> Tensor:
    r"""Kurtosis $E[(g-\bar g)^4] / E[(g-\bar g)^2]^2$ of a gradient's entries.

    3 for a normal distribution, 6 for a Laplace distribution.

    Args:
        gradient: A parameter's ``.grad``, any shape.

    Returns:
        Scalar, at least 1, float64; NaN for a constant gradient.

    Source:
        Reference [0], section 4.4.4: gradients should look bell-shaped.
    """
    values = sampled(gradient)
    centered = values - values.mean()
    scale = centered.abs().amax() if centered.numel() else centered.sum()
    centered = centered / scale  # squares of tiny gradients would be lost even in float64
    return centered.pow(4).mean() / centered.square().mean().square()
