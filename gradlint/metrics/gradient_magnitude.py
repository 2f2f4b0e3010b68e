"""How the magnitudes of a gradient's entries are distributed, in five quantiles."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from gradlint.metrics.base import Metric, Tap, sampled

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


_GIVEN = """

Args:
    gradient: A parameter's ``.grad``, any shape, with at least one entry.

Returns:
    Scalar, at least 0, float64.
"""


def _quantile(share: float, what: str) -> Metric:
    return Metric(
        f"gradient_magnitude_p{round(100 * share):02}",
        Tap.INITIAL_WEIGHT_GRAD,
        "loss / weight",
        partial(magnitude, share=share),
        what + _GIVEN,
    )


gradient_magnitude_p05 = _quantile(
    0.05, "Magnitude that one entry in twenty of a gradient does not exceed."
)
gradient_magnitude_p25 = _quantile(
    0.25, "Magnitude that a quarter of a gradient's entries do not exceed."
)
gradient_magnitude_p50 = _quantile(0.5, "Median magnitude of a gradient's entries.")
gradient_magnitude_p75 = _quantile(
    0.75, "Magnitude that three quarters of a gradient's entries do not exceed."
)
gradient_magnitude_p95 = _quantile(
    0.95, "Magnitude that one entry in twenty of a gradient exceeds."
)
