"""weight_std against its definition in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.weight_std import weight_std
from tests.strategies import entries, every_dtype, factors, shuffled, std_of, strided, tensors

CANCELED = 1e-9
"""Entries of 1000 that differ by 1e-3 keep ten digits of their deviation's square."""


@given(tensors())
def test_is_the_population_standard_deviation(weight: Tensor) -> None:
    std = std_of(entries(weight))

    for same in (weight, shuffled(weight), strided(weight)):
        assert float(weight_std(same)) == pytest.approx(std, rel=CANCELED, abs=1e-12)


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(weight: Tensor, factor: float) -> None:
    expected = abs(factor) * float(weight_std(weight))

    assert float(weight_std(factor * weight)) == pytest.approx(
        expected, rel=CANCELED, abs=1e-12 * abs(factor)
    )


@every_dtype
def test_of_a_parameter_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(30, 7).to(dtype))

    std = weight_std(weight)

    assert std.dtype == torch.float64
    assert not std.requires_grad
    assert float(std) == pytest.approx(std_of(entries(weight)), rel=CANCELED)


def test_of_a_constant_is_exactly_zero() -> None:
    assert float(weight_std(torch.full((9, 9), 0.1))) == 0.0


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(weight_std(torch.empty(0))))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_of_what_is_not_finite_is_nan(value: float) -> None:
    assert math.isnan(float(weight_std(torch.tensor([1.0, value]))))
