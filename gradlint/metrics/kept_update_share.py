"""How much of what the optimizer changes is still there when its next step begins."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.base import Tap, metric


@metric(Tap.RUN, unit="1")
def kept_update_share(begins: Tensor, ends: Tensor) -> Tensor:
    r"""Size of what a weight moved from step to step over the size of the steps.

    With $b_k$ the weight when step $k$ begins and $e_k$ when it ended,

    $$ \text{share} = \sqrt{\frac{\sum_k \|b_{k+1} - b_k\|^2}{\sum_k \|e_k - b_k\|^2}}. $$

    It is one where nobody but the optimizer changes the weight, zero where somebody puts it
    back after every step, and about $1-d$ where an average of decay $d$ is put in its place.

    Args:
        begins: The same entries of a weight when consecutive steps begin, of shape
            ``(K + 1, S)``, $K \ge 1$.
        ends: Those entries when the first $K$ of these steps ended, of shape ``(K, S)``.

    Returns:
        Scalar, float64, dimensionless, at least 0; NaN where no step changed anything, and where
        more than half of the entries have the smallest or the largest value: they are held by a
        bound or a mask.

    Raises:
        MetricError: If the shapes are not ``(K + 1, S)`` and ``(K, S)``.

    Example:
        >>> begins = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]).repeat(2, 1)
        >>> kept_update_share(begins, begins[:1] + 0.1)
        tensor(0., dtype=torch.float64)

    Source:
        Our own definition; the sums are over steps so that one without an update does not count.
    """
    fits = begins.ndim == ends.ndim == 2 and begins.shape[1] == ends.shape[1]
    if not fits or begins.shape[0] != ends.shape[0] + 1 or ends.shape[0] < 1:
        raise MetricError(
            "kept_update_share needs weights of shapes (K + 1, S) and (K, S), got "
            f"{tuple(begins.shape)} and {tuple(ends.shape)}"
        )
    begins, ends = begins.detach().to(torch.float64), ends.detach().to(torch.float64)
    moved = (begins[1:] - begins[:-1]).square().sum().sqrt()
    updated = (ends - begins[:-1]).square().sum().sqrt()
    last = begins[-1]
    held = ((last == last.amin()) | (last == last.amax())).double().mean()
    return torch.where(held > 0.5, torch.nan, moved / updated)
