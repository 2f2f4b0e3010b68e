"""weight_mean against a sum in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.weight_mean import weight_mean
from tests.strategies import ROUNDING, entries, every_dtype, mean_of, shuffled, strided, tensors

ABSORBED = 1e-12
"""Entries up to 1000 that cancel leave an error of about 1e-13 in their mean."""


@given(tensors())
def test_is_the_sum_over_the_count(weight: Tensor) -> None:
    mean = mean_of(entries(weight))

    for same in (weight, shuffled(weight), strided(weight)):
        assert float(weight_mean(same)) == pytest.approx(mean, rel=ROUNDING, abs=ABSORBED)


@every_dtype
def test_of_a_parameter_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(30, 7).to(dtype))

    mean = weight_mean(weight)

    assert mean.dtype == torch.float64
    assert not mean.requires_grad
    assert float(mean) == pytest.approx(mean_of(entries(weight)), rel=1e-9)


def test_of_a_scale_of_ones_is_one() -> None:
    assert float(weight_mean(nn.LayerNorm(7).weight)) == 1.0


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(weight_mean(torch.empty(0))))


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(weight_mean(torch.tensor([1.0, torch.nan]))))
    assert float(weight_mean(torch.tensor([1.0, torch.inf]))) == math.inf
