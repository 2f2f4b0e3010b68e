from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.unregistered_module import UnregisteredModule
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Event, OptimizerFacts


def event(**changes: object) -> Event:
    detail = {
        "attribute": "layers",
        "kind": "Linear",
        "container": "list",
        "parameters": 816,
        "modules": 3,
        "training": True,
    }
    return Event("unregistered-module", module="", detail={**detail, **changes})


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({}, True),
        ({"parameters": 0}, False),
        ({"training": False}, False),
    ],
    ids=["layers", "frozen", "a-teacher-in-eval-mode"],
)
def test_hidden_layers_are_an_error_if_they_are_to_learn(changes, flagged) -> None:
    found = findings_of(UnregisteredModule(), trace_of(events=(event(**changes),)))

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(("foreign", "expected"), [(6, Severity.WARNING), (2, Severity.ERROR)])
def test_an_optimizer_given_them_by_hand_makes_it_a_warning(foreign, expected) -> None:
    optimizer = OptimizerFacts("Adam", foreign=foreign)

    (found,) = findings_of(UnregisteredModule(), trace_of(events=(event(),), optimizer=optimizer))

    assert found.severity is expected


def test_the_same_attribute_is_told_once() -> None:
    trace = trace_of(events=(event(), event()))

    (found,) = findings_of(UnregisteredModule(), trace)

    assert found.message == "layers (list of Linear) hides 816 trainable weights from the model"


def test_without_the_event_there_is_nothing_to_say() -> None:
    assert findings_of(UnregisteredModule(), trace_of()) == ()


def test_gradlint_s_own_optimizer_was_given_nothing_by_hand() -> None:
    probe = OptimizerFacts("Adam", foreign=6, probe=True)

    (found,) = findings_of(UnregisteredModule(), trace_of(events=(event(),), optimizer=probe))

    assert found.severity is Severity.ERROR


def test_a_result_of_a_parameter_is_said_to_be_none() -> None:
    (found,) = findings_of(
        UnregisteredModule(),
        trace_of(events=(event(attribute="scale", container="tensor", kind="Parameter"),)),
    )

    assert found.message.startswith("scale (computed from a Parameter, and none itself) hides")
    assert "wrap the result" in found.help
