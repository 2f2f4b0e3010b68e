"""Size of a parameter's gradient."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, l2_norm, metric


@metric(Tap.WEIGHT_GRAD, unit="loss / weight")
def gradient_norm(gradient: Tensor) -> Tensor:
    """L2 norm of the loss gradient of one parameter, as the optimizer will see it.

    Args:
        gradient: A parameter's ``.grad``, any shape; sparse and complex ones too.

    Returns:
        Scalar, float64, on the device of `gradient`. Accumulated in float64, so that a
        float16 or float32 gradient neither overflows nor underflows here.

    Example:
        >>> gradient_norm(torch.tensor([3.0, 4.0]))
        tensor(5., dtype=torch.float64)
    """
    return l2_norm(gradient)
