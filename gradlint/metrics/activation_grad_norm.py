"""Size of the loss gradient at a layer's output."""

from __future__ import annotations

from torch import Tensor

from gradlint.metrics.base import Tap, l2_norm, metric


@metric(Tap.ACTIVATION_GRAD, unit="loss / activation")
def activation_grad_norm(gradient: Tensor) -> Tensor:
    """L2 norm of the gradient of the loss with respect to an activation.

    The Frobenius norm over the whole batch, not its root mean square: slicing and changes
    of width would count against the latter.

    Args:
        gradient: Gradient at a module's output, any shape.

    Returns:
        Scalar, float64, on the device of `gradient`. Accumulated in float64, where squares
        of float32 numbers neither overflow nor vanish.

    Source:
        Glorot & Bengio (2010), section 4.2.2: back-propagated gradients by layer.
    """
    return l2_norm(gradient)
