"""Share of a rectifier's units that never fire."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.base import Tap, metric


@metric(Tap.RECTIFIED, unit="1")
def dead_fraction(fired: Tensor) -> Tensor:
    """Share of units that fired on no sample of a window.

    Args:
        fired: Whether each unit fired at least once, of shape ``(U,)``, boolean.

    Returns:
        Scalar in ``[0, 1]``, float64, on the device of `fired`.

    Raises:
        MetricError: If `fired` is empty.

    Source:
        Maas, Hannun & Ng (2013), "Rectifier nonlinearities improve neural network acoustic
        models". A unit is called dead over a window of several batches, not over one.
    """
    if fired.numel() == 0:
        raise MetricError("dead_fraction needs at least one unit, got none")
    return 1 - fired.to(torch.float64).mean()


def fired_units(activation: Tensor, unit_axis: int) -> tuple[Tensor, int]:
    """Return which units fired, and on how many samples and positions each was judged.

    Args:
        activation: A rectifier's output, of shape ``(N, *, U, *)``, units at `unit_axis`.
        unit_axis: The axis that counts units (1 after a convolution, else the last).

    Returns:
        A boolean tensor of shape ``(U,)`` and the number of positions per unit.
    """
    if activation.ndim == 0 or activation.numel() == 0:
        raise MetricError(f"a rectifier's output needs units, got shape {tuple(activation.shape)}")
    by_unit = activation.detach().movedim(unit_axis, 0).reshape(activation.shape[unit_axis], -1)
    return (by_unit > 0).any(dim=1), by_unit.shape[1]
