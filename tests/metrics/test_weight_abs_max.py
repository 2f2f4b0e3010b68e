"""weight_abs_max against a loop."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.weight_abs_max import weight_abs_max
from tests.strategies import entries, every_dtype, shuffled, strided, tensors


@given(tensors())
def test_is_the_largest_size(weight: Tensor) -> None:
    largest = max(abs(v) for v in entries(weight))

    for same in (weight, shuffled(weight), strided(weight), -weight):
        assert float(weight_abs_max(same)) == largest


@every_dtype
def test_is_exact_in_every_dtype(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(30, 7).to(dtype))

    largest = weight_abs_max(weight)

    assert largest.dtype == torch.float64
    assert not largest.requires_grad
    assert float(largest) == max(abs(v) for v in entries(weight))


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(weight_abs_max(torch.tensor([1.0, torch.nan]))))
    assert float(weight_abs_max(torch.tensor([1.0, -torch.inf]))) == math.inf
