"""Gradients in a 16-bit format that are about to be flushed to zero."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled

SHORT = (torch.float16, torch.bfloat16)
"""Formats that gradients are computed in and can underflow."""

UNITS = 2
"""Entries of at most this many times the smallest number of the format hold two bits or less."""


@metric(Tap.ACTIVATION_GRAD, unit="1")
def underflow_share(gradient: Tensor) -> Tensor:
    r"""Share of a 16-bit gradient's squared norm in entries next to the format's zero.

    With $\epsilon$ the smallest number of the format above zero ($2^{-24}$ for float16),

    $$ \text{underflow\_share} = \frac{\sum_{|g_i| \le 2\epsilon} g_i^2}{\sum_i g_i^2}. $$

    Such an entry has two significant bits at most, and where it is typical the smaller ones
    have become zero. Zeros themselves prove nothing: rectifiers, pooling, dropout and padding
    make them. Weighing by the square leaves out small entries beside large ones, as in the
    gradient of a softmax over many classes, which nobody misses.

    Args:
        gradient: Gradient of an activation, any shape, as backward computes it: with the loss
            scale, in its own dtype.

    Returns:
        Scalar in ``[0, 1]``, float64, dimensionless; 0 for other than 16-bit formats, which
        are not read, and for a gradient of zeros.

    Example:
        >>> underflow_share(torch.tensor([0.0, 2**-24, 2**-23], dtype=torch.float16))
        tensor(1., dtype=torch.float64)
        >>> underflow_share(torch.tensor([0.0, 2**-24, 2**-10], dtype=torch.float16))
        tensor(3.7253e-09, dtype=torch.float64)

    Source:
        Micikevicius et al. (2018), "Mixed precision training", section 3.2: gradients below
        $2^{-24}$ become zero in float16. Weighing by the square is our choice.
    """
    return next_to_zero(gradient)


def next_to_zero(gradient: Tensor) -> Tensor:
    """Return the share that `underflow_share` documents, of any gradient."""
    if gradient.dtype not in SHORT:
        return torch.zeros((), dtype=torch.float64, device=gradient.device)
    smallest = torch.finfo(gradient.dtype).smallest_normal * torch.finfo(gradient.dtype).eps
    values = sampled(gradient)
    largest = values.abs().amax() if values.numel() else values.sum()
    # In units of the largest entry: squares of bfloat16's smallest are zero in float64, too.
    relative = torch.where(largest > 0, values / largest, torch.zeros_like(values))
    squares = relative.square()
    near = torch.where(values.abs() <= UNITS * smallest, squares, torch.zeros_like(squares))
    total = squares.sum()
    return torch.where(total > 0, near.sum() / total, torch.zeros_like(total))
