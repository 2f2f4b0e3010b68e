"""activation_std against its definition in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradlint.metrics.activation_std import activation_std
from tests.strategies import entries, every_dtype, factors, shuffled, std_of, strided, tensors

CANCELED = 1e-9
"""Entries of 1000 that differ by 1e-3 keep ten digits of their deviation's square."""


@given(tensors())
def test_is_the_population_standard_deviation(activation: Tensor) -> None:
    expected = std_of(entries(activation))

    assert float(activation_std(activation)) == pytest.approx(expected, rel=CANCELED, abs=1e-12)


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(activation: Tensor, factor: float) -> None:
    expected = abs(factor) * float(activation_std(activation))

    std = float(activation_std(factor * activation))

    assert std == pytest.approx(expected, rel=CANCELED, abs=1e-12 * abs(factor))


@given(tensors(), st.floats(-1e3, 1e3))
def test_does_not_see_a_shift(activation: Tensor, shift: float) -> None:
    std = float(activation_std(activation + shift))

    assert std == pytest.approx(float(activation_std(activation)), rel=CANCELED, abs=1e-9)


@given(tensors())
def test_knows_no_order_and_no_layout(activation: Tensor) -> None:
    std = float(activation_std(activation))

    assert float(activation_std(shuffled(activation))) == pytest.approx(std, rel=CANCELED)
    assert float(activation_std(strided(activation))) == std


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    activation = (torch.randn(64, 33) + 100).to(dtype)

    std = activation_std(activation)

    assert std.dtype == torch.float64
    assert float(std) == pytest.approx(std_of(entries(activation)), rel=CANCELED)


def test_of_a_constant_is_exactly_zero() -> None:
    assert float(activation_std(torch.full((3, 7), 0.1))) == 0.0


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(activation_std(torch.empty(0, 4))))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_of_what_is_not_finite_is_nan(value: float) -> None:
    assert math.isnan(float(activation_std(torch.tensor([1.0, value]))))
