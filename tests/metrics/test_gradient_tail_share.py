"""gradient_tail_share against a count."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradlint.metrics.gradient_tail_share import SIGMAS, gradient_tail_share
from tests.strategies import (
    entries,
    every_dtype,
    factors,
    mean_of,
    shuffled,
    std_of,
    strided,
    tensors,
)


def tail_of(values: list[float]) -> float:
    mean, std = mean_of(values), std_of(values)
    return sum(abs(v - mean) > SIGMAS * std for v in values) / len(values)


@given(tensors())
def test_is_the_count_beyond_six_sigma(gradient: Tensor) -> None:
    gradient = torch.cat([torch.zeros(60, dtype=torch.float64), gradient.reshape(-1)])

    assert float(gradient_tail_share(gradient)) == tail_of(entries(gradient))


@given(tensors())
def test_few_entries_cannot_be_far_out(gradient: Tensor) -> None:
    # Of n entries none is farther from the mean than √(n-1) standard deviations (Samuelson).
    few = gradient.reshape(-1)[:36]

    assert float(gradient_tail_share(few)) == 0.0


@given(factors())
def test_sees_neither_factor_nor_order_nor_layout(factor: float) -> None:
    gradient = torch.randn(500, dtype=torch.float64)
    gradient[7] = 1000.0

    for other in (factor * gradient, shuffled(gradient), strided(gradient)):
        assert float(gradient_tail_share(other)) == 1 / 500


@every_dtype
def test_one_entry_far_out_is_counted(dtype: torch.dtype) -> None:
    gradient = torch.randn(1000).to(dtype)
    gradient[3] = 500.0

    assert float(gradient_tail_share(gradient)) == 1e-3


def test_a_normal_gradient_has_no_tail() -> None:
    assert float(gradient_tail_share(torch.randn(100_000))) == 0.0


def test_of_a_constant_is_zero() -> None:
    assert float(gradient_tail_share(torch.full((1000,), 0.1))) == 0.0


def test_of_nothing_is_nan_and_warns_of_nothing() -> None:
    assert math.isnan(float(gradient_tail_share(torch.empty(0))))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_counted(value: float) -> None:
    assert float(gradient_tail_share(torch.tensor([1.0, value, 2.0]))) == 0.0
