"""GL001 not-observed."""

from __future__ import annotations

import pytest

from gradlint.graph import Operation
from gradlint.rules.not_observed import NotObserved
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, ParameterFacts, Trace


def model(
    *, calls: int = 0, gradient: str = "missing", requires_grad: bool = True, leaf: bool = True,
    read: bool = False,
) -> Trace:  # fmt: skip
    return trace_of(
        modules=[
            ModuleFacts("used", "Linear", calls=1, parameters=("used.weight",)),
            ModuleFacts("spare", "Linear", calls=calls, leaf=leaf, parameters=("spare.weight",)),
        ],
        parameters=[
            ParameterFacts("used.weight", module="used"),
            ParameterFacts(
                "spare.weight", module="spare", gradient=gradient, requires_grad=requires_grad
            ),
        ],
        operations=[Operation(0, "linear", "linear", parameters=("spare.weight",))] if read else [],
    )


def test_a_module_that_was_not_called_is_noted() -> None:
    (found,) = findings_of(NotObserved(), model(), exemptions=())

    assert found.code == "GL001"
    assert found.severity.label == "note"
    assert found.module == "spare"
    assert found.message == (
        "spare (Linear) was not called, and no operation read its parameters: it was not observed"
    )


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(model(calls=1), id="called"),
        pytest.param(model(read=True), id="weight-used-as-a-function"),
        pytest.param(model(gradient="present"), id="got-a-gradient-by-another-way"),
        pytest.param(model(requires_grad=False), id="frozen"),
        pytest.param(model(leaf=False), id="container"),
    ],
)
def test_what_was_seen_in_some_way_is_not_noted(trace: Trace) -> None:
    assert findings_of(NotObserved(), trace, exemptions=()) == ()


def test_a_module_without_parameters_is_not_noted() -> None:
    modules = [ModuleFacts("used", "Linear", calls=1), ModuleFacts("drop", "Dropout")]

    assert findings_of(NotObserved(), trace_of(modules=modules), exemptions=()) == ()


def test_the_rule_is_skipped_where_nothing_was_seen_running() -> None:
    assert NotObserved().skip_reason(trace_of()) == "no module was seen running"
    assert NotObserved().skip_reason(model()) is None


def test_a_tied_weight_read_under_its_other_name_is_seen() -> None:
    trace = trace_of(
        modules=[
            ModuleFacts("used", "Linear", calls=1),
            ModuleFacts("head", "Linear", parameters=("head.weight",)),
        ],
        parameters=[ParameterFacts("head.weight", gradient="missing", aliases=("used.weight",))],
        operations=[Operation(0, "linear", "linear", parameters=("used.weight",))],
    )

    assert findings_of(NotObserved(), trace, exemptions=()) == ()
