"""Learning rates of a loop by optimizer, with the losses beside them."""

from __future__ import annotations

import math

import pytest

from gradlint.rules._schedules import Stream, after_last_sweep, constant_factor, rate_streams
from gradlint.testing import observe, trace_of
from gradlint.trace import LoopFacts

FALLING = [(i, 0.5**i) for i in range(1, 11)]


def stream(start: float, late: float, at_low: float = 1.0) -> Stream:
    return Stream("", FALLING, [(i, at_low) for i in range(1, 11)], start, late)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(stream(2.0, 0.2), True, id="fell-to-a-tenth"),
        pytest.param(stream(2.0, 0.21, 1.0), False, id="was-still-falling"),
        pytest.param(stream(2.0, 1.0, 1.0), True, id="had-stopped"),
        pytest.param(stream(2.0, 1.7, 1.7), False, id="had-hardly-begun"),
        pytest.param(stream(-1.0, -0.5), False, id="below-zero-is-no-measure"),
        pytest.param(stream(math.nan, math.nan), False, id="unknown"),
    ],
)
def test_a_loss_had_come_down_before_the_rate_was_low(seen: Stream, expected: bool) -> None:
    assert seen.learned(FALLING, FALLING[0][1]) is expected


def test_an_unknown_loss_is_not_spoken_of() -> None:
    assert stream(2.0, 0.2).outcome == "; the loss went from 2 to 0.2"
    assert stream(math.nan, math.nan).outcome == ""


def test_a_rate_that_was_not_seen_again_has_not_changed() -> None:
    trace = trace_of(
        observe("learning_rate", "", [0.1], step=2),
        observe("learning_rate", "", [0.01], step=4),
        observe("loss", "", [1.0] * 5),
        loop=LoopFacts(steps=5),
    )

    (found,) = rate_streams(trace)

    assert found.rates == [(2, 0.1), (3, 0.1), (4, 0.01), (5, 0.01)]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param([0.5**i for i in range(10)], 0.5, id="constant"),
        pytest.param([1.0, 0.5, 0.25], None, id="too-few"),
        pytest.param([1 - 0.1 * i for i in range(10)], None, id="linear"),
        pytest.param([1.0] * 10, None, id="level"),
        pytest.param([0.5**i for i in range(19)] + [1e-30] * 9, 0.5, id="then-a-floor"),
    ],
)
def test_a_constant_factor_multiplies_nearly_every_rate(
    rates: list[float], expected: float | None
) -> None:
    found = constant_factor(list(enumerate(rates)))

    assert found == (None if expected is None else pytest.approx(expected))


def test_what_comes_after_a_sweep_counts() -> None:
    sweep = [1e-5 * 2**i for i in range(12)]
    rates = list(enumerate([*sweep, 1e-3 / 31, 1e-5, 1e-5]))

    assert after_last_sweep(rates) == rates[12:]
    assert after_last_sweep(rates[:12]) == rates[:12]
