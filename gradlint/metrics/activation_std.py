"""Spread of a layer's activations."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled, spread


@metric(Tap.ACTIVATION, unit="activation")
def activation_std(activation: Tensor) -> Tensor:
    """Standard deviation over all entries of an activation (population, not sample).

    Args:
        activation: Output of a module, any shape, any floating dtype.

    Returns:
        Scalar, float64, on the device of `activation`; NaN if it is empty.

    Source:
        The documented healthy value is "close to 1" (reference [0], section 4.4.4).
    """
    return spread(sampled(activation))
