"""How much the gradients of consecutive steps have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.base import Tap, metric


@metric(Tap.RUN, unit="1")
def gradient_signal_to_noise(samples: Tensor) -> Tensor:
    r"""Squared norm of a gradient's expectation over its variance, from consecutive steps.

    With $g_k$ the gradient at step $k$ of $K$ and $\bar g$ their mean,

    $$ \sigma^2 = \frac{1}{K-1} \sum_k \|g_k - \bar g\|^2, \qquad
       \text{signal to noise} = \frac{\|\bar g\|^2 - \sigma^2 / K}{\sigma^2}. $$

    The mean of $K$ gradients of pure noise has the squared norm $\sigma^2/K$; taking that off
    makes the numerator unbiased. So pure noise gives values around zero, of either sign, and
    gradients that alternate (a step too long) give $-1/K$.

    Args:
        samples: The same entries of one parameter's gradient at consecutive steps, of shape
            ``(K, S)``, $K \ge 2$; free of a loss scale, before clipping.

    Returns:
        Scalar, float64, dimensionless, in ``[-1/K, inf]``; inf, or what rounding leaves of it,
        for gradients that are all the same, NaN where all are zero.

    Raises:
        MetricError: If `samples` is not a matrix of two rows or more, and one column or more.

    Example:
        >>> gradient_signal_to_noise(torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
        tensor(1.5000, dtype=torch.float64)

    Source:
        McCandlish et al. (2018), "An empirical model of large-batch training", section 2.2
        and appendix A: the gradient noise scale over the batch size is one over this number.
    """
    if samples.ndim != 2 or samples.shape[0] < 2 or samples.shape[1] < 1:
        raise MetricError(
            "gradient_signal_to_noise needs gradients of two or more steps, of shape (K, S), "
            f"got {tuple(samples.shape)}"
        )
    gradients = samples.detach().to(torch.float64)  # (K, S)
    # Free of overflow and underflow; the ratio does not depend on the scale.
    gradients = gradients / gradients.abs().amax()
    mean = gradients.mean(dim=0)
    variance = (gradients - mean).square().sum() / (len(gradients) - 1)
    return (mean.square().sum() - variance / len(gradients)) / variance
