"""gradient_kurtosis against its definition in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from gradlint.metrics.gradient_kurtosis import gradient_kurtosis
from tests.strategies import entries, every_dtype, factors, shuffled, strided, tensors

CANCELED = 1e-6
"""Entries of 1000 that differ by 1e-3 keep about ten digits of a deviation, and the fourth
power of it loses four times as much."""


def kurtosis_of(values: list[float]) -> float:
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    fourth = sum((v - mean) ** 4 for v in exact) / len(exact)
    square = sum((v - mean) ** 2 for v in exact) / len(exact)
    return float(fourth / square**2) if square else math.nan


@given(tensors())
def test_is_the_fourth_moment_over_the_square_of_the_second(gradient: Tensor) -> None:
    expected = kurtosis_of(entries(gradient))

    kurtosis = float(gradient_kurtosis(gradient))

    assert kurtosis == pytest.approx(expected, rel=CANCELED, nan_ok=True)
    assert math.isnan(kurtosis) or kurtosis >= 1 - CANCELED


@given(tensors(), factors(), st.floats(-100, 100))
def test_sees_neither_factor_nor_shift_nor_order(
    gradient: Tensor, factor: float, shift: float
) -> None:
    kurtosis = float(gradient_kurtosis(gradient))
    assume(not math.isnan(kurtosis))
    assume(float(gradient.max() - gradient.min()) > 1)  # else the shift absorbs what there is

    moved = factor * shuffled(gradient) + shift * factor

    assert float(gradient_kurtosis(moved)) == pytest.approx(kurtosis, rel=CANCELED)
    assert float(gradient_kurtosis(strided(gradient))) == kurtosis


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        pytest.param(lambda: torch.randn(200_000), 3.0, id="normal"),
        pytest.param(lambda: torch.rand(200_000), 1.8, id="uniform"),
        pytest.param(lambda: torch.rand(200_000).sub(0.5).sign(), 1.0, id="two-points"),
        pytest.param(
            lambda: torch.distributions.Laplace(0.0, 1.0).sample((200_000,)), 6.0, id="laplace"
        ),
    ],
)
def test_of_known_distributions(sample: object, expected: float) -> None:
    # The standard error is √(24/n) = 0.011 for the normal, some ten times that for Laplace.
    assert float(gradient_kurtosis(sample())) == pytest.approx(expected, rel=0.05)


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    gradient = torch.randn(200).to(dtype)

    kurtosis = gradient_kurtosis(gradient)

    assert kurtosis.dtype == torch.float64
    assert float(kurtosis) == pytest.approx(kurtosis_of(entries(gradient)), rel=CANCELED)


@pytest.mark.parametrize("scale", [1e-300, 1e-120, 1e120])
def test_squares_of_tiny_and_huge_gradients_are_not_lost(scale: float) -> None:
    gradient = torch.tensor([-1.0, 0.0, 0.0, 5.0], dtype=torch.float64)

    kurtosis = float(gradient_kurtosis(scale * gradient))

    assert kurtosis == pytest.approx(float(gradient_kurtosis(gradient)), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-30])
def test_of_a_constant_is_nan(value: float) -> None:
    assert math.isnan(float(gradient_kurtosis(torch.full((3, 7), value))))


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(gradient_kurtosis(torch.empty(0))))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_of_what_is_not_finite_is_nan(value: float) -> None:
    assert math.isnan(float(gradient_kurtosis(torch.tensor([1.0, value, 2.0]))))
