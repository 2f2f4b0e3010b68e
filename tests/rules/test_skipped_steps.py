from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.rules.skipped_steps import SkippedSteps
from gradlint.testing import findings_of, trace_of
from gradlint.trace import LoopFacts, ScalerFacts, Trace

WARNING, ERROR = Severity.WARNING, Severity.ERROR


def trace(steps: int, late: int, early: int = 0) -> Trace:
    scaler = ScalerFacts(65536.0, 0.5, steps=steps, skipped=early + late, skipped_late=late)
    return trace_of(loop=LoopFacts(steps=steps, scaler=scaler))


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(SkippedSteps(), observed)]


@pytest.mark.parametrize(
    ("steps", "late", "expected"),
    [
        pytest.param(60, 10, [WARNING], id="every-third"),
        pytest.param(60, 3, [], id="exactly-the-limit"),
        pytest.param(60, 4, [WARNING], id="just-over-it"),
        pytest.param(40, 3, [WARNING], id="just-enough-steps-and-skips"),
        pytest.param(39, 20, [], id="too-few-steps"),
        pytest.param(60, 27, [ERROR], id="nine-of-ten"),
        pytest.param(60, 26, [WARNING], id="just-under-nine-of-ten"),
    ],
)
def test_the_second_half_is_judged(steps, late, expected) -> None:
    assert severities(trace(steps, late)) == expected


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(200, 0, early=16), id="the-search-for-the-first-scale"),
        pytest.param(trace(20, 8, early=8), id="a-short-run-that-still-searches"),
        pytest.param(trace(10_000, 3, early=8), id="a-scale-that-doubles-now-and-then"),
        pytest.param(trace(200, 9, early=9), id="an-interval-of-ten"),
        pytest.param(trace(40, 2), id="two-of-twenty"),
        pytest.param(trace(500, 0), id="none"),
        pytest.param(trace_of(loop=LoopFacts(steps=40)), id="no-scaler"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_loops_are_silent(observed) -> None:
    assert severities(observed) == []


@given(st.integers(1, 100_000), st.integers(2000, 20_000), st.integers(0, 24))
def test_a_scaler_at_its_default_interval_is_never_flagged(steps, interval, search) -> None:
    late = (steps - steps // 2) // interval + 1

    assert severities(trace(steps, late, early=min(search, steps // 2))) == []


def test_it_says_why_it_is_skipped() -> None:
    assert SkippedSteps().skip_reason(trace_of()) == "no training loop was watched"
    assert SkippedSteps().skip_reason(trace_of(loop=LoopFacts())) == "no GradScaler seen"
    assert SkippedSteps().skip_reason(trace(60, 10)) is None


def test_the_message_names_steps_and_scale() -> None:
    (found,) = findings_of(SkippedSteps(), trace(60, 10))

    assert found.message == (
        "the GradScaler skipped 10 of the last 30 steps (limit 10%); its scale went from 6.6e+04 "
        "to 0.5"
    )


def test_two_skipped_steps_are_too_few_in_any_run() -> None:
    rule = SkippedSteps(min_steps=10)

    assert findings_of(rule, trace(20, 2)) == ()
    assert findings_of(rule, trace(20, 3))
