"""gradient_ratio against two norms taken in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradlint.metrics.gradient_ratio import gradient_ratio
from tests.strategies import ROUNDING, entries, every_dtype, factors, norm_of, strided, tensors


@given(tensors())
def test_is_the_ratio_of_the_norms(weight: Tensor) -> None:
    weight = weight + 2000  # not zero anywhere
    gradient = torch.randn(weight.shape, dtype=torch.float64)
    expected = norm_of(entries(gradient)) / norm_of(entries(weight))

    assert float(gradient_ratio(weight, gradient)) == pytest.approx(expected, rel=ROUNDING)


@given(factors(), factors())
def test_scales_with_the_gradient_and_against_the_weight(up: float, down: float) -> None:
    weight, gradient = torch.randn(2, 4, 3, dtype=torch.float64)
    expected = abs(up / down) * float(gradient_ratio(weight, gradient))

    assert float(gradient_ratio(down * weight, up * gradient)) == pytest.approx(expected, rel=1e-11)


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    weight, gradient = torch.randn(2, 50, 50).to(dtype)

    ratio = gradient_ratio(weight, gradient)

    assert ratio.dtype == torch.float64
    assert float(ratio) == pytest.approx(
        norm_of(entries(gradient)) / norm_of(entries(weight)), rel=ROUNDING
    )


def test_knows_no_layout() -> None:
    weight, gradient = torch.randn(2, 4, 3)

    ratio = float(gradient_ratio(strided(weight), strided(gradient)))

    assert ratio == pytest.approx(float(gradient_ratio(weight, gradient)), rel=ROUNDING)


def test_of_a_zero_weight_is_infinite_or_nan() -> None:
    zero = torch.zeros(3)

    assert float(gradient_ratio(zero, torch.ones(3))) == math.inf
    assert math.isnan(float(gradient_ratio(zero, zero)))


def test_reads_sparse_and_complex_gradients() -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.tensor([[3.0, 4.0]]), (4, 2), check_invariants=True
    )

    assert float(
        gradient_ratio(torch.full((4, 2), 0.0) + torch.eye(4, 2), sparse)
    ) == pytest.approx(5 / math.sqrt(2))
    assert float(gradient_ratio(torch.tensor([2j]), torch.tensor([3 + 4j]))) == 2.5


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(gradient_ratio(torch.ones(2), torch.tensor([1.0, torch.nan]))))
    assert float(gradient_ratio(torch.ones(2), torch.tensor([1.0, torch.inf]))) == math.inf
