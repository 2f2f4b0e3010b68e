from __future__ import annotations

from gradlint.finding import Severity
from gradlint.rules.detached_loss import DetachedLoss
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Event


def test_a_loss_without_a_gradient_function_is_an_error() -> None:
    events = (Event("detached-loss"), Event("detached-loss", 1))

    (found,) = findings_of(DetachedLoss(), trace_of(events=events))

    assert found.severity is Severity.ERROR
    assert found.message == (
        "the loss has no gradient function in 2 steps: no parameter leads to it"
    )


def test_other_events_are_silent() -> None:
    assert findings_of(DetachedLoss(), trace_of(events=(Event("exception"),))) == ()
