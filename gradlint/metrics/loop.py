"""Numbers of a watched training loop: measured by the watcher, named here."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric


def _number(value: Tensor) -> Tensor:
    return value.detach().to(torch.float64).reshape(())


@metric(Tap.RUN, unit="loss / weight")
def norm_before_clipping(value: Tensor) -> Tensor:
    """Norm that a clipping call compared with its limit, free of a GradScaler's scale.

    Args:
        value: The norm, one entry.

    Returns:
        Scalar, float64.
    """
    return _number(value)


@metric(Tap.RUN, unit="loss / weight")
def clipping_limit(value: Tensor) -> Tensor:
    """Limit of a clipping call: its `max_norm` or `clip_value`.

    Args:
        value: The limit, one entry.

    Returns:
        Scalar, float64.
    """
    return _number(value)


@metric(Tap.RUN, unit="loss / weight")
def backward_gradient_norm(value: Tensor) -> Tensor:
    """Total gradient norm when a step's last backward ended, before anybody clipped or cleared it.

    Args:
        value: The norm, one entry.

    Returns:
        Scalar, float64.
    """
    return _number(value)


@metric(Tap.RUN, unit="loss / weight")
def carried_gradient_norm(value: Tensor) -> Tensor:
    """Norm of what the last step's gradients left in `.grad` when the next backward began.

    Zero where they were cleared in between.

    Args:
        value: The norm, one entry.

    Returns:
        Scalar, float64.
    """
    return _number(value)


@metric(Tap.RUN, unit="loss")
def stream_loss(value: Tensor) -> Tensor:
    """Loss of one of several optimizers in a loop; its site is named like what it trains.

    Args:
        value: The loss, one entry.

    Returns:
        Scalar, float64.
    """
    return _number(value)


@metric(Tap.RUN, unit="1")
def frozen_change(value: Tensor) -> Tensor:
    """Relative change ‖ΔW‖/‖W‖ of a parameter that needs no gradient, since it was last seen.

    Args:
        value: The ratio, one entry.

    Returns:
        Scalar, float64.
    """
    return _number(value)
