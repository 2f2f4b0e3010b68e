"""How the magnitudes of a gradient's entries are distributed, in five quantiles."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled

ENTRIES = 4096
"""Entries looked at: enough for a share of 5 % to be off by a third of a percent (its standard
error), and quickly sorted."""


def magnitude(gradient: Tensor, share: float) -> Tensor:
    """Return the magnitude that `share` of the entries of `gradient` do not exceed.

    Example:
        >>> float(magnitude(torch.tensor([4.0, -1.0, 0.0, 2.0, -3.0]), 0.25))
        1.0
    """
    ordered = sampled(gradient, ENTRIES).abs().sort().values  # NaN is sorted to the end
    return ordered[round(share * (len(ordered) - 1))]


@metric(Tap.INITIAL_WEIGHT_GRAD, unit="loss / weight")
def gradient_magnitude_p05(gradient: Tensor) -> Tensor:
    """Magnitude that one entry in twenty of a gradient does not exceed.

    Args:
        gradient: A parameter's ``.grad``, any shape, with at least one entry.

    Returns:
        Scalar, at least 0, float64.
    """
    return magnitude(gradient, 0.05)


@metric(Tap.INITIAL_WEIGHT_GRAD, unit="loss / weight")
def gradient_magnitude_p25(gradient: Tensor) -> Tensor:
    """Magnitude that a quarter of a gradient's entries do not exceed.

    Args:
        gradient: A parameter's ``.grad``, any shape, with at least one entry.

    Returns:
        Scalar, at least 0, float64.
    """
    return magnitude(gradient, 0.25)


@metric(Tap.INITIAL_WEIGHT_GRAD, unit="loss / weight")
def gradient_magnitude_p50(gradient: Tensor) -> Tensor:
    """Median magnitude of a gradient's entries.

    Args:
        gradient: A parameter's ``.grad``, any shape, with at least one entry.

    Returns:
        Scalar, at least 0, float64.
    """
    return magnitude(gradient, 0.5)


@metric(Tap.INITIAL_WEIGHT_GRAD, unit="loss / weight")
def gradient_magnitude_p75(gradient: Tensor) -> Tensor:
    """Magnitude that three quarters of a gradient's entries do not exceed.

    Args:
        gradient: A parameter's ``.grad``, any shape, with at least one entry.

    Returns:
        Scalar, at least 0, float64.
    """
    return magnitude(gradient, 0.75)


@metric(Tap.INITIAL_WEIGHT_GRAD, unit="loss / weight")
def gradient_magnitude_p95(gradient: Tensor) -> Tensor:
    """Magnitude that one entry in twenty of a gradient exceeds.

    Args:
        gradient: A parameter's ``.grad``, any shape, with at least one entry.

    Returns:
        Scalar, at least 0, float64.
    """
    return magnitude(gradient, 0.95)
