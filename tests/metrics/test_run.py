"""The numbers of the whole run."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradlint.metrics.gradient_norm import gradient_norm
from gradlint.metrics.run import (
    dead_positions,
    learning_rate,
    loss,
    pre_activation_grad_norm,
    total_gradient_norm,
)
from tests.strategies import ROUNDING, every_dtype, factors, norm_of

norms = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=8)


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(norms)
def test_total_norm_is_the_norm_of_the_norms(values: list[float]) -> None:
    assert float(total_gradient_norm(column(values))) == pytest.approx(
        norm_of(values), rel=ROUNDING, abs=1e-150
    )


@given(norms, factors())
def test_total_norm_scales_and_knows_no_order(values: list[float], factor: float) -> None:
    total = float(total_gradient_norm(column(values)))

    scaled = float(total_gradient_norm(abs(factor) * column(values[::-1])))

    assert scaled == pytest.approx(abs(factor) * total, rel=ROUNDING, abs=1e-150)


def test_total_norm_is_what_torch_clips() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    model(torch.randn(4, 5)).square().mean().backward()
    each = [gradient_norm(p.grad) for p in model.parameters()]

    clipped = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))

    # torch sums in float32.
    assert float(total_gradient_norm(torch.stack(each))) == pytest.approx(clipped, rel=1e-6)


@pytest.mark.parametrize("size", [1e200, 1e300])
def test_total_norm_does_not_overflow_where_squares_do(size: float) -> None:
    assert float(total_gradient_norm(column([3 * size, 4 * size]))) == pytest.approx(5 * size)


def test_total_norm_of_zeros_is_zero() -> None:
    assert float(total_gradient_norm(column([0.0, 0.0]))) == 0.0


def test_total_norm_shows_what_is_not_finite() -> None:
    assert math.isnan(float(total_gradient_norm(column([1.0, math.nan]))))
    assert not math.isfinite(float(total_gradient_norm(column([1.0, math.inf]))))


@every_dtype
@pytest.mark.parametrize("metric", [loss, learning_rate, dead_positions, pre_activation_grad_norm])
def test_a_single_number_is_passed_on_in_float64(metric: object, dtype: torch.dtype) -> None:
    for value in (torch.tensor(0.5), torch.tensor([[0.5]]), torch.tensor(0.5).requires_grad_()):
        read = metric(value.detach().to(dtype))

        assert read.dtype == torch.float64
        assert read.shape == ()
        assert float(read) == 0.5


def test_loss_is_detached() -> None:
    assert not loss(torch.tensor(1.0, requires_grad=True) * 2).requires_grad
