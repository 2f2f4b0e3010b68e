"""activation_grad_norm against a loop, on gradients autograd made."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.activation_grad_norm import activation_grad_norm
from tests.strategies import (
    ROUNDING,
    entries,
    every_dtype,
    factors,
    norm_of,
    shuffled,
    strided,
    tensors,
)


@given(tensors())
def test_is_the_root_of_the_sum_of_squares(gradient: Tensor) -> None:
    expected = norm_of(entries(gradient))

    assert float(activation_grad_norm(gradient)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(gradient: Tensor, factor: float) -> None:
    expected = abs(factor) * float(activation_grad_norm(gradient))

    assert float(activation_grad_norm(factor * gradient)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors())
def test_knows_no_order_and_no_layout(gradient: Tensor) -> None:
    norm = float(activation_grad_norm(gradient))

    assert float(activation_grad_norm(shuffled(gradient))) == pytest.approx(norm, rel=ROUNDING)
    assert float(activation_grad_norm(strided(gradient))) == pytest.approx(norm, rel=ROUNDING)


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    gradient = torch.randn(40, 20).to(dtype)

    norm = activation_grad_norm(gradient)

    assert norm.dtype == torch.float64
    assert float(norm) == pytest.approx(norm_of(entries(gradient)), rel=ROUNDING)


def test_agrees_with_autograd_on_a_layer() -> None:
    layer = nn.Linear(4, 3)
    activation = layer(torch.randn(5, 4))
    (gradient,) = torch.autograd.grad(activation.square().sum(), activation)

    expected = norm_of([2 * value for value in entries(activation)])

    # The gradient itself is float32: 2x is exact, its square is summed in float64.
    assert float(activation_grad_norm(gradient)) == pytest.approx(expected, rel=ROUNDING)


def test_of_a_complex_gradient_counts_both_parts() -> None:
    assert float(activation_grad_norm(torch.tensor([3 + 4j, 0j]))) == 5.0


def test_of_nothing_is_zero() -> None:
    assert float(activation_grad_norm(torch.empty(0))) == 0.0


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(activation_grad_norm(torch.tensor([1.0, torch.nan]))))
    assert float(activation_grad_norm(torch.tensor([1.0, torch.inf]))) == math.inf
