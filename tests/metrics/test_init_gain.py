"""init_gain against the formulas of the initializers themselves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from gradlint.errors import MetricError
from gradlint.metrics.init_gain import init_gain
from tests.strategies import entries, every_dtype, factors, std_of, strided, tensors

SPREAD = 0.01
"""The std of 512·512 normal entries errs by 1/√(2·512²) = 0.14 %; seven times that is allowed."""


@given(tensors(min_dims=2, max_dims=4))
def test_is_the_std_times_the_root_of_the_fan_in(weight: Tensor) -> None:
    fan_in = math.prod(weight.shape[1:])
    expected = std_of(entries(weight)) * math.sqrt(fan_in)

    assert float(init_gain(weight)) == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert float(init_gain(strided(weight))) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@given(factors())
def test_scales_with_the_size_of_a_factor(factor: float) -> None:
    weight = torch.randn(6, 5, dtype=torch.float64)
    expected = abs(factor) * float(init_gain(weight))

    assert float(init_gain(factor * weight)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("initialize", "expected"),
    [
        pytest.param(nn.init.kaiming_normal_, math.sqrt(2), id="kaiming"),
        pytest.param(nn.init.xavier_uniform_, 1.0, id="xavier"),
        pytest.param(nn.init.orthogonal_, 1.0, id="orthogonal"),
        pytest.param(lambda w: nn.init.normal_(w, std=1 / math.sqrt(512)), 1.0, id="lecun"),
        pytest.param(nn.init.zeros_, 0.0, id="zeros"),
    ],
)
def test_of_the_known_initializations(initialize: object, expected: float) -> None:
    weight = torch.empty(512, 512)

    initialize(weight)

    assert float(init_gain(weight)) == pytest.approx(expected, rel=SPREAD)


@pytest.mark.parametrize(
    "layer", [nn.Linear(512, 512), nn.Conv2d(64, 128, 3)], ids=["linear", "conv"]
)
def test_of_torchs_default_is_one_over_the_root_of_three(layer: nn.Module) -> None:
    assert float(init_gain(layer.weight)) == pytest.approx(1 / math.sqrt(3), rel=SPREAD)


@every_dtype
def test_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    weight = torch.randn(20, 16).to(dtype)

    gain = init_gain(weight)

    assert gain.dtype == torch.float64
    assert float(gain) == pytest.approx(4 * std_of(entries(weight)), rel=1e-9)


@pytest.mark.parametrize("shape", [(), (5,)])
def test_refuses_what_has_no_fan_in(shape: tuple[int, ...]) -> None:
    with pytest.raises(MetricError, match=r"init_gain needs a weight of shape \(U, F, \*\), got"):
        init_gain(torch.zeros(shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_of_what_is_not_finite_is_nan(value: float) -> None:
    assert math.isnan(float(init_gain(torch.tensor([[1.0, value]]))))
