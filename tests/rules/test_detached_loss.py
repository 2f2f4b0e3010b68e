from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.detached_loss import DetachedLoss
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Event, LoopFacts


def test_a_loss_without_a_gradient_function_is_an_error() -> None:
    events = (Event("detached-loss"), Event("detached-loss", 1))

    (found,) = findings_of(DetachedLoss(), trace_of(events=events))

    assert found.severity is Severity.ERROR
    assert found.message == (
        "the loss has no gradient function in 2 steps: no parameter leads to it"
    )


def test_other_events_are_silent() -> None:
    assert findings_of(DetachedLoss(), trace_of(events=(Event("exception"),))) == ()


@pytest.mark.parametrize(
    ("norms", "ended", "expected"),
    [
        pytest.param([], "exception", Severity.ERROR, id="ended-at-once"),
        pytest.param([1.0] * 5, "exception", Severity.ERROR, id="ended-by-it"),
        pytest.param([0.0] * 5, "", Severity.ERROR, id="made-to-require-a-gradient"),
        pytest.param([1.0] * 5, "", Severity.WARNING, id="one-batch-was-passed-over"),
    ],
)
def test_in_a_loop_that_learns_one_detached_loss_is_a_warning(norms, ended, expected) -> None:
    trace = trace_of(
        observe("total_gradient_norm", "", norms),
        events=(Event("detached-loss", 3),),
        loop=LoopFacts(steps=5, backwards=6, ended=ended),
    )

    assert [f.severity for f in findings_of(DetachedLoss(), trace)] == [expected]
