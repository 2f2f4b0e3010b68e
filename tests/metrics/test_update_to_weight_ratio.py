"""update_to_weight_ratio against a loop, and against what SGD does by its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.update_to_weight_ratio import update_to_weight_ratio
from tests.strategies import ROUNDING, entries, every_dtype, factors, norm_of, strided, tensors


@given(tensors())
def test_is_the_norm_of_the_change_over_that_of_the_weight(before: Tensor) -> None:
    before = before + 2000
    after = before + torch.randn_like(before)
    moved = [a - b for a, b in zip(entries(after), entries(before), strict=True)]

    expected = norm_of(moved) / norm_of(entries(before))

    for pair in ((before, after), (strided(before), strided(after))):
        assert float(update_to_weight_ratio(*pair)) == pytest.approx(expected, rel=ROUNDING)


@given(factors())
def test_does_not_see_a_common_factor(factor: float) -> None:
    before, after = torch.randn(2, 4, 3, dtype=torch.float64)
    ratio = float(update_to_weight_ratio(before, after))

    scaled = float(update_to_weight_ratio(factor * before, factor * after))

    assert scaled == pytest.approx(ratio, rel=ROUNDING)


def test_of_plain_sgd_is_rate_times_gradient_ratio() -> None:
    layer = nn.Linear(6, 5).double()
    before = layer.weight.detach().clone()
    layer(torch.randn(4, 6).double()).square().sum().backward()
    assert layer.weight.grad is not None
    expected = 0.01 * float(layer.weight.grad.norm() / before.norm())

    torch.optim.SGD(layer.parameters(), lr=0.01).step()

    ratio = float(update_to_weight_ratio(before, layer.weight))
    # The weight rounds to 1e-16 of itself, a hundredth of a change of 1e-2 by 1e-14.
    assert ratio == pytest.approx(expected, rel=1e-10)


@every_dtype
def test_the_difference_is_taken_in_float64(dtype: torch.dtype) -> None:
    before = torch.full((8,), 1.0, dtype=dtype)
    after = torch.full((8,), 1.25, dtype=dtype)

    ratio = update_to_weight_ratio(before, after)

    assert ratio.dtype == torch.float64
    assert float(ratio) == 0.25


def test_of_a_weight_that_stayed_is_zero() -> None:
    assert float(update_to_weight_ratio(torch.ones(3), torch.ones(3))) == 0.0


def test_of_a_weight_that_was_zero_is_infinite_or_nan() -> None:
    zero = torch.zeros(3)

    assert float(update_to_weight_ratio(zero, torch.ones(3))) == math.inf
    assert math.isnan(float(update_to_weight_ratio(zero, zero)))


def test_reads_complex_weights() -> None:
    assert float(update_to_weight_ratio(torch.tensor([2j]), torch.tensor([1 + 2j]))) == 0.5


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(update_to_weight_ratio(torch.ones(1), torch.tensor([torch.nan]))))
    assert float(update_to_weight_ratio(torch.ones(1), torch.tensor([torch.inf]))) == math.inf
