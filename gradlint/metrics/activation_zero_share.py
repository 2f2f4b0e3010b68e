"""Sparsity of a layer's activations."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Tap, metric, sampled


@metric(Tap.ACTIVATION, unit="1")
def activation_zero_share(activation: Tensor) -> Tensor:
    """Share of entries of an activation that are exactly zero.

    A rectifier fed a symmetric signal gives one half; that is what it is for. Death is a
    property of a unit over many samples: see `dead_fraction`.

    Args:
        activation: Output of a module, any shape, any floating dtype.

    Returns:
        Scalar in ``[0, 1]``, float64, on the device of `activation`.

    Source:
        Documented healthy sparsity after a ReLU: 10-50 % (reference [0], pitfall 7).
    """
    return (sampled(activation) == 0).to(torch.float64).mean()
