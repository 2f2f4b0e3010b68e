"""Numbers of a watched training loop: measured by the watcher, named here."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.metrics.base import Metric, Tap


def _number(value: Tensor) -> Tensor:
    """Return a tensor of one entry as a scalar, float64."""
    return value.detach().to(torch.float64).reshape(())


_GIVEN = """

Args:
    value: The number, a tensor of one entry.

Returns:
    Scalar, float64.
"""


def _named(name: str, unit: str, what: str) -> Metric:
    return Metric(name, Tap.RUN, unit, _number, what + _GIVEN)


norm_before_clipping = _named(
    "norm_before_clipping",
    "loss / weight",
    "Norm that a clipping call compared with its limit, free of a GradScaler's scale.",
)
clipping_limit = _named(
    "clipping_limit",
    "loss / weight",
    "Limit of a clipping call: its `max_norm` or `clip_value`.",
)
backward_gradient_norm = _named(
    "backward_gradient_norm",
    "loss / weight",
    "Total gradient norm when a step's last backward ended, before anybody clipped or cleared it.",
)
carried_gradient_norm = _named(
    "carried_gradient_norm",
    "loss / weight",
    "Norm of what the last step's gradients left in `.grad` when the next backward began; zero "
    "where they were cleared in between.",
)
stream_loss = _named(
    "stream_loss",
    "loss",
    "Loss of one of several optimizers in a loop; its site is named like what it trains.",
)
frozen_change = _named(
    "frozen_change",
    "1",
    "Relative change ‖ΔW‖/‖W‖ of a parameter that needs no gradient, since it was last seen.",
)
