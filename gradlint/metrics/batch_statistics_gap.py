"""How far a BatchNorm's running statistics are from those of its batches."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric

EPS = 1e-5
"""Added to variances, as BatchNorm does by default: a channel that is constant has none."""


@metric(Tap.RUN, unit="1")
def batch_statistics_gap(
    running_mean: Tensor, running_var: Tensor, batch_mean: Tensor, batch_var: Tensor
) -> Tensor:
    r"""Median over the channels of how far running statistics are from a batch's.

    Of each channel the larger of the shift, in running standard deviations, and of the
    logarithm of the ratio of the two standard deviations,

    $$ \text{gap} = \operatorname{median}_c \max\left(
       \frac{|\mu_c - \hat\mu_c|}{\hat\sigma_c},
       \left|\ln \frac{\sigma_c}{\hat\sigma_c}\right| \right). $$

    A gap of one shifts what evaluation computes by one standard deviation, or stretches it by
    $e$, in half of the channels. The median leaves out the few channels that are constant.

    Args:
        running_mean: $\hat\mu$ of shape ``(C,)``.
        running_var: $\hat\sigma^2$ of shape ``(C,)``.
        batch_mean: $\mu$ of shape ``(C,)``, over samples and positions.
        batch_var: $\sigma^2$ of shape ``(C,)``, over samples and positions.

    Returns:
        Scalar, float64, dimensionless, not negative, on the device of `running_mean`.

    Example:
        >>> zero, one = torch.zeros(3), torch.ones(3)
        >>> batch_statistics_gap(zero, one, 2 * one, one)
        tensor(2.0000, dtype=torch.float64)

    Source:
        Ioffe & Szegedy (2015), "Batch normalization", section 3.1: what inference uses. The
        gap's form is our choice.
    """
    means = running_mean.to(torch.float64), batch_mean.to(torch.float64)
    variances = running_var.to(torch.float64) + EPS, batch_var.to(torch.float64) + EPS
    shift = (means[1] - means[0]).abs() / variances[0].sqrt()
    stretch = (variances[1] / variances[0]).log().abs() / 2
    return torch.maximum(shift, stretch).median()
