"""dead_fraction and fired_units against loops over units and samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.dead_fraction import dead_fraction, fired_units
from tests.strategies import every_dtype, strided, tensors


def fired_of(activation: Tensor, axis: int) -> list[bool]:
    """Unit by unit: does any entry fire?"""
    units = range(activation.shape[axis])
    return [any(v > 0 for v in activation.select(axis, u).reshape(-1).tolist()) for u in units]


@given(tensors(), st.data())
def test_a_unit_fires_if_any_of_its_entries_does(activation: Tensor, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, activation.ndim - 1))

    fired, positions = fired_units(activation, axis)

    assert fired.tolist() == fired_of(activation, axis)
    assert positions == activation.numel() // activation.shape[axis]


@given(tensors(min_dims=2))
def test_fraction_is_one_less_the_share_that_fired(activation: Tensor) -> None:
    fired, _ = fired_units(activation, activation.ndim - 1)
    units = fired_of(activation, activation.ndim - 1)

    dead = float(dead_fraction(fired))

    assert dead == pytest.approx(1 - sum(units) / len(units), abs=1e-15)
    assert 0 <= dead <= 1


@given(tensors(min_dims=2, max_dims=2), st.floats(1e-3, 1e3))
def test_neither_order_of_samples_nor_scale_matters(activation: Tensor, factor: float) -> None:
    fired, _ = fired_units(activation, 1)

    assert fired_units(activation.flip(0), 1)[0].equal(fired)
    assert fired_units(factor * activation, 1)[0].equal(fired)
    assert fired_units(strided(activation), 1)[0].equal(fired)


@given(tensors(min_dims=2, max_dims=2))
def test_one_unit_that_fires_lowers_the_fraction(activation: Tensor) -> None:
    before = float(dead_fraction(fired_units(activation, 1)[0]))
    wider = torch.cat([activation, torch.ones(len(activation), 1, dtype=torch.float64)], dim=1)

    after = float(dead_fraction(fired_units(wider, 1)[0]))

    assert after == pytest.approx(before * activation.shape[1] / wider.shape[1])


@given(tensors(min_dims=2, max_dims=2))
def test_more_samples_never_kill_a_unit(activation: Tensor) -> None:
    fired, _ = fired_units(activation, 1)
    more, _ = fired_units(torch.cat([activation, torch.zeros_like(activation)]), 1)

    assert more.equal(fired)


@every_dtype
def test_units_of_a_convolution_are_its_channels(dtype: torch.dtype) -> None:
    activation = torch.zeros(2, 4, 3, 3, dtype=dtype)
    activation[1, 2, 0, 1] = 1e-3

    fired, positions = fired_units(activation, 1)

    assert fired.tolist() == [False, False, True, False]
    assert positions == 18
    assert float(dead_fraction(fired)) == 0.75


def test_nan_does_not_fire_and_infinity_does() -> None:
    fired, _ = fired_units(torch.tensor([[torch.nan, torch.inf, -torch.inf]]), 1)

    assert fired.tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0)])
def test_refuses_what_has_no_units(shape: tuple[int, ...]) -> None:
    with pytest.raises(MetricError, match="a rectifier's output needs units"):
        fired_units(torch.zeros(shape), -1)


def test_refuses_a_layer_without_units() -> None:
    with pytest.raises(MetricError, match="at least one unit"):
        dead_fraction(torch.empty(0, dtype=torch.bool))
