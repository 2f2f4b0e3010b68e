"""Weight gradients in a 16-bit format that are about to be flushed to zero."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric
from gradlint.metrics.underflow_share import next_to_zero


@metric(Tap.WEIGHT_GRAD, unit="1")
def gradient_underflow_share(gradient: Tensor) -> Tensor:
    """Share of a 16-bit weight gradient's squared norm in entries next to the format's zero.

    The same as `underflow_share`, of a parameter's gradient. Under autocast parameters, and
    with them their gradients, are float32: only a model in 16 bits has something to lose here.

    Args:
        gradient: A parameter's ``.grad``, any shape, in its own dtype.

    Returns:
        Scalar in ``[0, 1]``, float64, dimensionless; 0 for other than 16-bit formats.
    """
    return next_to_zero(gradient)
