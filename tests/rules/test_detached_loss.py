from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.detached_loss import DetachedLoss
from gradlint.rules.missing_gradient import MissingGradient
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    EmptyFacts,
    Event,
    LoopFacts,
    OptimizerFacts,
    ParameterFacts,
    TermFacts,
    Trace,
)


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


def from_a_new_tensor(*operations: Operation, gradient: str = "missing", foreign: int = 0) -> Trace:
    once, last = gradient == "at-one-step", "missing" if "step" in gradient else gradient
    default = (Operation(0, "input", "", shape=(20,)), Operation(1, "sum", "", None, (0,)))
    return trace_of(
        observe("gradient_norm", "0.weight", [1.0] if once else []),
        operations=operations or default,
        parameters=(ParameterFacts("0.weight", (4, 4), gradient=last),),
        optimizer=OptimizerFacts("Adam", foreign=foreign),
        loop=LoopFacts(steps=5, backwards=5),
    )


NEW = Operation(0, "input", "", shape=(20, 4))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(from_a_new_tensor(), True, id="torch.tensor"),
        pytest.param(from_a_new_tensor(gradient="finite"), False, id="a-gradient-all-the-same"),
        pytest.param(
            from_a_new_tensor(gradient="at-one-step"), False, id="a-gradient-at-another-step"
        ),
        pytest.param(from_a_new_tensor(foreign=1), False, id="an-image-is-optimized"),
        pytest.param(
            from_a_new_tensor(NEW, Operation(1, "linear", "", None, (0,))), False, id="a-layer"
        ),
        pytest.param(
            from_a_new_tensor(NEW, Operation(1, "mul", "", None, (0,), ("0.weight",))),
            False,
            id="a-parameter",
        ),
        pytest.param(from_a_new_tensor(Operation(0, "linear", "")), False, id="no-new-tensor"),
    ],
)
def test_a_loss_of_a_new_tensor_leads_to_no_parameter(trace: Trace, flagged: bool) -> None:
    found = findings_of(DetachedLoss(), trace)

    assert [f.severity for f in found] == [Severity.ERROR] * flagged


def test_the_new_tensor_is_named_once_and_by_its_shape() -> None:
    (found,) = findings_of(DetachedLoss(), from_a_new_tensor())

    assert found.message == (
        "the loss is computed from a new tensor (20) that leads to no parameter"
    )
    assert findings_of(MissingGradient(), from_a_new_tensor()) == ()


@pytest.mark.parametrize(("seen", "flagged"), [(3, True), (2, False)])
def test_an_optimizer_that_took_over_and_never_finds_a_gradient(seen: int, flagged: bool) -> None:
    loop = LoopFacts(steps=90, backwards=90, empty=(EmptyFacts("Adam", 61, 30, seen),))

    found = findings_of(DetachedLoss(), trace_of(loop=loop))

    assert [f.message for f in found] == [
        "Adam made 30 steps from step 61 on, and backward left no gradient at any of the 3 looked "
        "at: no parameter leads to the loss"
    ] * flagged


def test_one_that_holds_nothing_of_the_models_is_another_rules() -> None:
    empty = EmptyFacts("Adam", 61, 30, 30, foreign=4)

    assert findings_of(DetachedLoss(), trace_of(loop=LoopFacts(steps=90, empty=(empty,)))) == ()


@pytest.mark.parametrize(("seen", "flagged"), [(3, True), (2, False)])
def test_a_term_that_leads_to_a_batch_alone_is_a_warning(seen: int, flagged: bool) -> None:
    loop = LoopFacts(steps=90, backwards=90, term=TermFacts(1, seen, (64, 1)))

    found = findings_of(DetachedLoss(), trace_of(loop=loop))

    assert [(f.message, f.severity) for f in found] == [
        (
            "a term of the loss leads to no parameter at 3 steps looked at, but to a tensor that "
            "the model was called with (64 × 1) and that nothing updates",
            Severity.WARNING,
        )
    ] * flagged
