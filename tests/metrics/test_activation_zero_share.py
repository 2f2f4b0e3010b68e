"""activation_zero_share against a count."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from torch import Tensor

from gradlint.metrics.activation_zero_share import activation_zero_share
from tests.strategies import entries, every_dtype, factors, shuffled, strided, tensors


@given(tensors())
def test_is_the_count_of_zeros_over_the_count(activation: Tensor) -> None:
    values = entries(activation)

    share = float(activation_zero_share(activation))

    assert share == sum(v == 0 for v in values) / len(values)
    assert 0 <= share <= 1


@given(tensors(), factors())
def test_does_not_see_a_factor(activation: Tensor, factor: float) -> None:
    assert activation_zero_share(factor * activation) == activation_zero_share(activation)


@given(tensors())
def test_knows_no_order_and_no_layout(activation: Tensor) -> None:
    share = activation_zero_share(activation)

    assert activation_zero_share(shuffled(activation)) == share
    assert activation_zero_share(strided(activation)) == share


@given(tensors())
def test_a_rectifier_makes_the_negative_entries_zero(activation: Tensor) -> None:
    share = float(activation_zero_share(activation.relu()))

    assert share == sum(v <= 0 for v in entries(activation)) / activation.numel()


@every_dtype
def test_counts_in_every_dtype(dtype: torch.dtype) -> None:
    activation = torch.tensor([0.0, -0.0, 1.0, 2.0, 1e-3], dtype=dtype)

    assert float(activation_zero_share(activation)) == 0.4


def test_what_is_not_finite_is_not_zero() -> None:
    assert float(activation_zero_share(torch.tensor([torch.nan, torch.inf, 0.0, 0.0]))) == 0.5


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(activation_zero_share(torch.empty(0))))
