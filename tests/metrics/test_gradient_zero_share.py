"""gradient_zero_share against a count."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.gradient_zero_share import gradient_zero_share
from tests.strategies import entries, every_dtype, factors, shuffled, strided, tensors


@given(tensors())
def test_is_the_count_of_zeros_over_the_count(gradient: Tensor) -> None:
    values = entries(gradient)

    assert float(gradient_zero_share(gradient)) == sum(v == 0 for v in values) / len(values)


@given(tensors(), factors())
def test_sees_neither_factor_nor_order_nor_layout(gradient: Tensor, factor: float) -> None:
    share = gradient_zero_share(gradient)

    assert gradient_zero_share(factor * gradient) == share
    assert gradient_zero_share(shuffled(gradient)) == share
    assert gradient_zero_share(strided(gradient)) == share


@every_dtype
def test_what_a_low_precision_flushes_counts_as_zero(dtype: torch.dtype) -> None:
    gradient = torch.tensor([1e-9, 1.0, 0.0, 2.0]).to(dtype)

    assert float(gradient_zero_share(gradient)) == (0.5 if dtype == torch.float16 else 0.25)


def test_units_behind_a_dead_rectifier_have_zero_gradients() -> None:
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.bias[:3] = -100
        layer.bias[3] = 100
    layer(torch.randn(8, 3)).relu().sum().backward()
    assert layer.weight.grad is not None

    assert float(gradient_zero_share(layer.weight.grad)) == 0.75


def test_rows_an_embedding_did_not_read_are_no_stored_zeros() -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.tensor([[3.0, 0.0]]), (40, 2), check_invariants=True
    )

    assert float(gradient_zero_share(sparse)) == 0.5


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(gradient_zero_share(torch.empty(0))))


def test_what_is_not_finite_is_not_zero() -> None:
    assert float(gradient_zero_share(torch.tensor([torch.nan, torch.inf, 0.0, 0.0]))) == 0.5
