"""Size of a layer's activations."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled


@metric(Tap.ACTIVATION, unit="activation")
def activation_rms(activation: Tensor) -> Tensor:
    """Root mean square over all entries of an activation.

    Unlike the standard deviation it does not fall to zero where a layer's output is a
    constant, so a ratio of two layers' values says how the signal's size changes.

    Args:
        activation: Output of a module, any shape, any floating dtype.

    Returns:
        Scalar, float64, on the device of `activation`. Squares of float32 values do not
        overflow in float64.
    """
    return sampled(activation).square().mean().sqrt()
