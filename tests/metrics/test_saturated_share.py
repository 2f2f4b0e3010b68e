"""saturated_share and relative_slope against autograd's own derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn import functional as F

from gradlint.metrics.saturated_share import FLAT, relative_slope, saturated_share
from tests.strategies import entries, every_dtype, shuffled, strided, tensors

STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "hardsigmoid": 1 / 6, "hardtanh": 1.0}
"""Largest derivative of each: at 0, by their formulas."""

FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
}

every_kind = pytest.mark.parametrize("kind", STEEPEST)


def slope_of(kind: str, pre_activation: Tensor) -> Tensor:
    """The derivative by autograd, over its largest value."""
    z = pre_activation.clone().requires_grad_()
    (slope,) = torch.autograd.grad(FUNCTIONS[kind](z).sum(), z)
    return slope / STEEPEST[kind]


@every_kind
@given(tensors())
def test_slope_is_the_derivative_over_its_maximum(kind: str, pre_activation: Tensor) -> None:
    activation = FUNCTIONS[kind](pre_activation / 100)

    slope = relative_slope(kind, activation)

    assert slope is not None
    # 1 - a² cancels near 1: an error of one rounding of a, 1e-16, in the slope. Torch keeps
    # the 1/6 of hardsigmoid in float32.
    assert torch.allclose(slope, slope_of(kind, pre_activation / 100), rtol=1e-7, atol=1e-12)


@every_kind
def test_slope_lies_between_zero_and_one(kind: str) -> None:
    slope = relative_slope(kind, FUNCTIONS[kind](torch.linspace(-20, 20, 999)))

    assert slope is not None
    assert float(slope.min()) >= 0
    assert float(slope.max()) <= 1


@given(tensors())
def test_share_is_the_count_below_the_limit(slope: Tensor) -> None:
    slope = slope.abs() / 1e3
    values = entries(slope)

    share = float(saturated_share(slope))

    assert share == sum(v < FLAT for v in values) / len(values)
    assert saturated_share(shuffled(slope)) == share
    assert saturated_share(strided(slope)) == share


def test_exactly_at_the_limit_is_not_flat() -> None:
    assert float(saturated_share(torch.tensor([FLAT], dtype=torch.float64))) == 0.0


@every_dtype
def test_a_layer_far_out_is_saturated(dtype: torch.dtype) -> None:
    activation = torch.sigmoid(torch.tensor([-8.0, -1.0, 0.0, 8.0])).to(dtype)
    slope = relative_slope("sigmoid", activation)
    assert slope is not None

    share = saturated_share(slope)

    assert share.dtype == torch.float64
    assert float(share) == 0.5


def test_sigmoid_is_flat_where_its_slope_is_a_twentieth_of_its_maximum() -> None:
    edge = 4.356708  # σ(z)(1-σ(z)) = 0.05/4, solved for z
    for z, flat in ((edge - 1e-3, 0.0), (edge + 1e-3, 1.0)):
        slope = relative_slope("sigmoid", torch.sigmoid(torch.tensor([z], dtype=torch.float64)))
        assert slope is not None
        assert float(saturated_share(slope)) == flat


def test_a_clamp_of_its_own_range_is_flat_outside_that_range() -> None:
    activation = torch.tensor([-5.0, -2.0, 0.0, 3.0, 5.0])

    slope = relative_slope("hardtanh", activation, low=-5.0, high=5.0)

    assert slope is not None
    assert slope.tolist() == [0, 1, 1, 1, 0]


def test_other_activations_have_no_slope_here() -> None:
    assert relative_slope("gelu", torch.zeros(3)) is None


def test_of_nothing_is_nan() -> None:
    assert math.isnan(float(saturated_share(torch.empty(0))))
