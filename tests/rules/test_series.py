"""Series of a loop: one value a step, quantiles, spikes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.rules._series import clippings, points, quantile, spikes
from gradlint.testing import observe, trace_of


def numbered(values: list[float]) -> list[tuple[int, float]]:
    return list(enumerate(values, start=1))


def test_points_are_finite_and_one_a_step_and_leave_initialization_out() -> None:
    seen = trace_of(
        observe("loss", "", [9.0], step=0),
        observe("loss", "", [2.0, math.nan, 3.0, math.inf]),
        observe("loss", "", [4.0], step=3),
    )

    assert points(seen, "loss") == [(1, 2.0), (3, 4.0)]


def test_clippings_pair_norm_and_limit_by_step() -> None:
    seen = trace_of(
        observe("norm_before_clipping", "", [1.0, 2.0, 3.0]),
        observe("clipping_limit", "", [0.5, 0.5], start=2),
    )

    assert clippings(seen) == [(2, 2.0, 0.5), (3, 3.0, 0.5)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_value_that_enough_do_not_exceed(values, share) -> None:
    found = quantile(values, share)

    assert found in values
    assert sum(v <= found for v in values) >= share * len(values) - 1e-6


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        pytest.param([1.0] * 20 + [11.0] + [1.0] * 5, [21], id="a-spike"),
        pytest.param([1.0] * 20 + [10.0] + [1.0] * 5, [], id="exactly-at-the-limit"),
        pytest.param([1.0] * 10 + [11.0] + [1.0] * 5, [11], id="just-enough-before"),
        pytest.param([1.0] * 9 + [11.0] + [1.0] * 5, [], id="too-few-before"),
        pytest.param([1.0] * 20 + [11.0], [], id="nothing-after"),
        pytest.param([1.0] * 20 + [11.0] * 8, [], id="stays-up"),
        pytest.param([2.0**i for i in range(30)], [], id="diverges"),
        pytest.param([20.0] + [1.0] * 19 + [11.0] + [1.0] * 5, [], id="below-the-first-steps"),
        pytest.param([0.1, 1.0, 10.0] * 8 + [99.0] + [1.0] * 5, [], id="varies-by-decades"),
        pytest.param([0.0] * 20 + [11.0] + [0.0] * 5, [], id="zeros-before"),
    ],
)
def test_spikes_stand_out_of_their_own_history_and_come_back(values, steps) -> None:
    assert [spike.step for spike in spikes(numbered(values), 10.0)] == steps
