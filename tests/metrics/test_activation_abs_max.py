"""activation_abs_max against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradlint.metrics.activation_abs_max import activation_abs_max
from gradlint.metrics.base import SAMPLE
from tests.strategies import ROUNDING, entries, every_dtype, factors, shuffled, strided, tensors


@given(tensors())
def test_is_the_largest_size(activation: Tensor) -> None:
    assert float(activation_abs_max(activation)) == max(abs(v) for v in entries(activation))


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(activation: Tensor, factor: float) -> None:
    expected = abs(factor) * float(activation_abs_max(activation))

    assert float(activation_abs_max(factor * activation)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors())
def test_knows_no_order_and_no_layout(activation: Tensor) -> None:
    largest = activation_abs_max(activation)

    assert activation_abs_max(shuffled(activation)) == largest
    assert activation_abs_max(strided(activation)) == largest


@every_dtype
def test_is_exact_in_every_dtype(dtype: torch.dtype) -> None:
    activation = torch.randn(50).to(dtype)

    largest = activation_abs_max(activation)

    assert largest.dtype == torch.float64
    assert float(largest) == max(abs(v) for v in entries(activation))


def test_every_entry_of_a_large_tensor_is_looked_at() -> None:
    activation = torch.zeros(4 * SAMPLE)
    activation[12345] = -7.0

    assert float(activation_abs_max(activation)) == 7.0


def test_of_nothing_is_zero() -> None:
    assert float(activation_abs_max(torch.empty(0, 3))) == 0.0


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(activation_abs_max(torch.tensor([torch.nan, 1.0]))))
    assert float(activation_abs_max(torch.tensor([-torch.inf, 1.0]))) == math.inf
