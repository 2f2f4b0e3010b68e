"""Size of a gradient against its parameter."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, l2_norm, metric


@metric(Tap.WEIGHT_AND_GRAD, unit="loss / weight²")
def gradient_ratio(weight: Tensor, gradient: Tensor) -> Tensor:
    r"""Ratio $\|\nabla_W L\| / \|W\|$ of one parameter.

    Args:
        weight: A parameter, any shape.
        gradient: Its gradient, of the same shape (sparse allowed).

    Returns:
        Scalar, float64; infinite for a zero weight with a gradient, NaN for a zero weight
        without.

    Source:
        Reference [0], section 4.4.4: healthy from 1e-3 to 1e-1. Most healthy networks leave
        the band somewhere, so it is shown for every layer and judged only with more.
    """
    return l2_norm(gradient) / l2_norm(weight)
