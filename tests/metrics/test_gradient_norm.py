"""gradient_norm against a loop, on gradients autograd made."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.gradient_norm import gradient_norm
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
def test_is_the_root_of_the_sum_of_squares(gradient: Tensor) -> None:
    assert float(gradient_norm(gradient)) == pytest.approx(norm_of(entries(gradient)), rel=ROUNDING)


@given(tensors(), factors())
def test_scales_with_the_size_of_a_factor(gradient: Tensor, factor: float) -> None:
    expected = abs(factor) * float(gradient_norm(gradient))

    assert float(gradient_norm(factor * gradient)) == pytest.approx(expected, rel=ROUNDING)


@given(tensors())
def test_knows_no_order_and_no_layout(gradient: Tensor) -> None:
    norm = float(gradient_norm(gradient))

    assert float(gradient_norm(shuffled(gradient))) == pytest.approx(norm, rel=ROUNDING)
    assert float(gradient_norm(strided(gradient))) == pytest.approx(norm, rel=ROUNDING)


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    gradient = (300 * torch.randn(100, 100)).to(dtype)  # in float16 its norm overflows

    norm = gradient_norm(gradient)

    assert norm.dtype == torch.float64
    assert float(norm) == pytest.approx(norm_of(entries(gradient)), rel=ROUNDING)


def test_of_a_sparse_gradient_is_that_of_the_dense_one() -> None:
    rows = torch.tensor([1, 1, 3])
    norms = []
    for sparse in (True, False):
        table = nn.Embedding(5, 2, sparse=sparse)
        nn.init.ones_(table.weight)
        (table(rows) * torch.tensor([[1.0], [2.0], [5.0]])).sum().backward()
        assert table.weight.grad is not None
        assert table.weight.grad.is_sparse is sparse
        norms.append(float(gradient_norm(table.weight.grad)))

    assert norms[0] == norms[1] == pytest.approx(math.sqrt(2 * 3**2 + 2 * 5**2))


def test_of_a_sparse_gradient_without_entries_is_zero() -> None:
    empty = torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.long), torch.empty(0, 2), (5, 2), check_invariants=True
    )

    assert float(gradient_norm(empty)) == 0.0


def test_of_a_complex_parameter_counts_both_parts() -> None:
    weight = torch.tensor([1 + 2j, 3j], requires_grad=True)
    (weight.abs() ** 2).sum().backward()
    assert weight.grad is not None

    assert float(gradient_norm(weight.grad)) == pytest.approx(2 * math.sqrt(1 + 4 + 9))


def test_of_nothing_is_zero() -> None:
    assert float(gradient_norm(torch.empty(0, 3))) == 0.0


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(gradient_norm(torch.tensor([1.0, torch.nan]))))
    assert float(gradient_norm(torch.tensor([1.0, -torch.inf]))) == math.inf
