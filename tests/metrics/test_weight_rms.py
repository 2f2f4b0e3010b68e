"""weight_rms against its definition in a loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.metrics.weight_norm import weight_norm
from gradlint.metrics.weight_rms import weight_rms
from tests.strategies import ROUNDING, entries, every_dtype, norm_of, shuffled, strided, tensors


@given(tensors())
def test_is_the_norm_over_the_root_of_the_count(weight: Tensor) -> None:
    rms = norm_of(entries(weight)) / math.sqrt(weight.numel())

    for same in (weight, shuffled(weight), strided(weight)):
        assert float(weight_rms(same)) == pytest.approx(rms, rel=ROUNDING)
    assert float(weight_norm(weight)) == pytest.approx(
        rms * math.sqrt(weight.numel()), rel=ROUNDING
    )


@every_dtype
def test_of_a_parameter_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.randn(30, 7).to(dtype))

    rms = weight_rms(weight)

    assert rms.dtype == torch.float64
    assert not rms.requires_grad
    assert float(rms) == pytest.approx(norm_of(entries(weight)) / math.sqrt(210), rel=ROUNDING)


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(weight_rms(torch.empty(0))))


def test_shows_what_is_not_finite() -> None:
    assert math.isnan(float(weight_rms(torch.tensor([1.0, torch.nan]))))
    assert float(weight_rms(torch.tensor([1.0, -torch.inf]))) == math.inf
