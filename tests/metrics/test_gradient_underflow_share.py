"""gradient_underflow_share, on what backward leaves in `.grad`."""

from __future__ import annotations

import torch
from torch import nn

from gradlint.metrics.gradient_underflow_share import gradient_underflow_share


def gradient(dtype: torch.dtype, factor: float) -> torch.Tensor:
    torch.manual_seed(0)
    layer = nn.Linear(16, 16).to(dtype)
    (factor * layer(torch.randn(8, 16, dtype=dtype)).float().square().mean()).backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def test_a_model_in_float16_loses_what_one_in_bfloat16_keeps() -> None:
    assert float(gradient_underflow_share(gradient(torch.float16, 2e-6))) > 0.25
    assert float(gradient_underflow_share(gradient(torch.bfloat16, 2e-6))) == 0
    assert float(gradient_underflow_share(gradient(torch.float32, 2e-6))) == 0


def test_a_scaled_loss_loses_nothing() -> None:
    assert float(gradient_underflow_share(gradient(torch.float16, 2e-6 * 2**16))) < 0.01
