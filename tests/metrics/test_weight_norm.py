"""weight_norm against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.weight_norm import weight_norm
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
def test_is_the_root_of_the_sum_of_squares(weight: Tensor) -> None:
    assert float(weight_norm(weight)) == pytest.approx(norm_of(entries(weight)), rel=ROUNDING)


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(weight: Tensor, factor: float) -> None:
    expected = abs(factor) * float(weight_norm(weight))

    assert float(weight_norm(factor * weight)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors())
def test_knows_no_order_and_no_layout(weight: Tensor) -> None:
    norm = float(weight_norm(weight))

    assert float(weight_norm(shuffled(weight))) == pytest.approx(norm, rel=ROUNDING)
    assert float(weight_norm(strided(weight))) == pytest.approx(norm, rel=ROUNDING)


@every_dtype
def test_of_a_parameter_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(30, 7).to(dtype))

    norm = weight_norm(weight)

    assert norm.dtype == torch.float64
    assert not norm.requires_grad
    assert float(norm) == pytest.approx(norm_of(entries(weight)), rel=ROUNDING)


def test_of_a_complex_weight_counts_both_parts() -> None:
    assert float(weight_norm(torch.tensor([3 + 4j]))) == 5.0


def test_of_nothing_is_zero() -> None:
    assert float(weight_norm(torch.empty(0))) == 0.0


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(weight_norm(torch.tensor([1.0, torch.nan]))))
    assert float(weight_norm(torch.tensor([1.0, -torch.inf]))) == math.inf
