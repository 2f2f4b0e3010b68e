"""Numbers of the whole run, and of whole operations: measured by the engine, named here."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, l2_norm, metric


@metric(Tap.RUN, unit="loss")
def loss(value: Tensor) -> Tensor:
    """Loss of one batch.

    Args:
        value: The tensor backward starts from, one entry.

    Returns:
        Scalar, float64.
    """
    return value.detach().to(torch.float64).reshape(())


@metric(Tap.RUN, unit="loss / weight")
def total_gradient_norm(norms: Tensor) -> Tensor:
    """L2 norm of all gradients as one vector; what `clip_grad_norm_` clips.

    Args:
        norms: Gradient norms of all parameters, of shape ``(P,)``.

    Returns:
        Scalar, float64; scaled by the largest norm first, so that it cannot overflow.
    """
    largest = norms.amax()
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    return l2_norm(norms / scale) * scale


@metric(Tap.RUN, unit="weight² / loss")
def learning_rate(value: Tensor) -> Tensor:
    """Largest learning rate of the optimizer's groups at a step.

    Args:
        value: The rate, one entry.

    Returns:
        Scalar, float64.
    """
    return value.detach().to(torch.float64).reshape(())


@metric(Tap.RUN, unit="1")
def dead_positions(count: Tensor) -> Tensor:
    """Samples and positions on which each unit of a rectifier was judged.

    Args:
        count: The number, one entry.

    Returns:
        Scalar, float64.
    """
    return count.to(torch.float64).reshape(())


@metric(Tap.RUN, unit="loss / pre-activation")
def pre_activation_grad_norm(norm: Tensor) -> Tensor:
    """L2 norm of the loss gradient at the output of a weight layer, before its activation.

    Args:
        norm: The norm, one entry, read from the operation's own node.

    Returns:
        Scalar, float64.
    """
    return norm.to(torch.float64).reshape(())
