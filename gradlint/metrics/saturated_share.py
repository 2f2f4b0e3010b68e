"""Share of a sigmoidal layer on the flat part of its activation."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled

FLAT = 0.05
"""A derivative below this share of its maximum counts as flat (rules.md, GL202)."""


@metric(Tap.SIGMOIDAL, unit="1")
def saturated_share(slope: Tensor) -> Tensor:
    r"""Share of entries where the activation's derivative is below 5 % of its maximum.

    Args:
        slope: The derivative $\phi'(z)$ over its maximum, any shape, in ``[0, 1]``; see
            `relative_slope`.

    Returns:
        Scalar in ``[0, 1]``, float64, on the device of `slope`.

    Example:
        >>> saturated_share(relative_slope("tanh", torch.tensor([0.0, 0.5, 0.99, -1.0])))
        tensor(0.5000, dtype=torch.float64)
    """
    return (sampled(slope) < FLAT).to(torch.float64).mean()


def relative_slope(
    kind: str, activation: Tensor, low: float = -1.0, high: float = 1.0
) -> Tensor | None:
    r"""Return $\phi'(z) / \max \phi'$ from the activation $\phi(z)$.

    Args:
        kind: "sigmoid", "tanh", "hardsigmoid" or "hardtanh".
        activation: What the activation returned, any shape.
        low: Where a hardtanh begins to be flat below.
        high: Where it begins to be flat above.

    Returns:
        A tensor of the same shape, or None for another kind.
    """
    if kind == "sigmoid":
        return 4 * activation * (1 - activation)
    if kind == "tanh":
        return 1 - activation.square()
    if kind == "hardsigmoid":
        return ((activation > 0) & (activation < 1)).to(activation.dtype)
    if kind == "hardtanh":
        return ((activation > low) & (activation < high)).to(activation.dtype)
    return None
