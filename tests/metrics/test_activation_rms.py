"""activation_rms against its definition in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradlint.metrics.activation_mean import activation_mean
from gradlint.metrics.activation_rms import activation_rms
from gradlint.metrics.activation_std import activation_std
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
def test_is_the_norm_over_the_root_of_the_count(activation: Tensor) -> None:
    expected = norm_of(entries(activation)) / math.sqrt(activation.numel())

    assert float(activation_rms(activation)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors())
def test_its_square_is_mean_squared_plus_variance(activation: Tensor) -> None:
    mean, std = float(activation_mean(activation)), float(activation_std(activation))

    assert float(activation_rms(activation)) == pytest.approx(math.hypot(mean, std), rel=1e-9)


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(activation: Tensor, factor: float) -> None:
    expected = abs(factor) * float(activation_rms(activation))

    assert float(activation_rms(factor * activation)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors())
def test_knows_no_order_and_no_layout(activation: Tensor) -> None:
    rms = float(activation_rms(activation))

    assert float(activation_rms(shuffled(activation))) == pytest.approx(rms, rel=ROUNDING)
    assert float(activation_rms(strided(activation))) == rms


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    activation = torch.randn(64, 33).to(dtype)
    values = entries(activation)

    rms = activation_rms(activation)

    assert rms.dtype == torch.float64
    assert float(rms) == pytest.approx(norm_of(values) / math.sqrt(len(values)), rel=ROUNDING)


def test_squares_do_not_overflow_float32() -> None:
    assert float(activation_rms(torch.full((9,), 3e38))) == pytest.approx(3e38)


def test_of_a_constant_is_its_size() -> None:
    assert float(activation_rms(torch.full((5,), -2.0))) == 2.0


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(activation_rms(torch.empty(0))))


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(activation_rms(torch.tensor([1.0, torch.nan]))))
    assert float(activation_rms(torch.tensor([1.0, -torch.inf]))) == math.inf
