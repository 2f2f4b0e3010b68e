"""activation_mean against a sum in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradlint.metrics.activation_mean import activation_mean
from gradlint.metrics.base import SAMPLE
from tests.strategies import (
    ROUNDING,
    entries,
    every_dtype,
    factors,
    mean_of,
    shuffled,
    strided,
    tensors,
)

ABSORBED = 1e-12
"""Entries up to 1000 that cancel leave an error of about 1e-13 in their mean."""


@given(tensors())
def test_is_the_sum_over_the_count(activation: Tensor) -> None:
    expected = mean_of(entries(activation))

    assert float(activation_mean(activation)) == pytest.approx(expected, rel=ROUNDING, abs=ABSORBED)


@given(tensors(), factors())
def test_scales_with_the_activation(activation: Tensor, factor: float) -> None:
    expected = factor * float(activation_mean(activation))

    mean = float(activation_mean(factor * activation))

    assert mean == pytest.approx(expected, rel=ROUNDING, abs=abs(factor) * ABSORBED)


@given(tensors())
def test_knows_no_order_and_no_layout(activation: Tensor) -> None:
    mean = float(activation_mean(activation))

    assert float(activation_mean(shuffled(activation))) == pytest.approx(mean, abs=ABSORBED)
    assert float(activation_mean(strided(activation))) == pytest.approx(mean, abs=ABSORBED)


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    activation = torch.randn(64, 33).to(dtype)

    mean = activation_mean(activation)

    assert mean.dtype == torch.float64
    assert float(mean) == pytest.approx(mean_of(entries(activation)), rel=1e-9)


def test_float16_does_not_overflow() -> None:
    assert float(activation_mean(torch.full((100,), 6e4, dtype=torch.float16))) == pytest.approx(
        6e4
    )


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(activation_mean(torch.empty(0))))


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(activation_mean(torch.tensor([1.0, torch.nan]))))
    assert float(activation_mean(torch.tensor([1.0, torch.inf]))) == math.inf


def test_of_a_sample_is_close_to_that_of_the_whole() -> None:
    activation = torch.randn(8 * SAMPLE)

    mean = float(activation_mean(activation))

    # Five standard errors of a mean over the sample: five in ten million seeds miss it.
    assert mean == pytest.approx(float(activation.double().mean()), abs=5 / math.sqrt(SAMPLE / 2))
