from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.foreign_parameters import ForeignParameters
from gradlint.testing import findings_of, trace_of
from gradlint.trace import OptimizerFacts, ParameterFacts, Trace


def trace(
    foreign: int, *held: bool, probe: bool = False, requires_grad: bool = True, **facts: object
) -> Trace:
    parameters = [
        ParameterFacts(f"{i}.weight", (4, 4), requires_grad=requires_grad, in_optimizer=h)
        for i, h in enumerate(held)
    ]
    optimizer = OptimizerFacts("SGD", foreign=foreign, probe=probe)
    return trace_of(parameters=parameters, optimizer=optimizer, **facts)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(2, False, False), Severity.ERROR, id="another-model's"),
        pytest.param(trace(1, True, False), Severity.ERROR, id="a-layer-replaced"),
        pytest.param(trace(1, True, True), Severity.NOTE, id="a-loss-with-parameters"),
        pytest.param(trace(1, True, False, pretrained=True), Severity.WARNING, id="head-only"),
        pytest.param(trace(0, False, False), None, id="nothing-foreign"),
        pytest.param(trace(2, False, probe=True), None, id="our-own-optimizer"),
        pytest.param(trace_of(), None, id="no-optimizer"),
    ],
)
def test_foreign_parameters_are_judged_by_what_is_lacking(observed, expected) -> None:
    found = findings_of(ForeignParameters(), observed)

    assert [f.severity for f in found] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (
            trace(2, False, False),
            "the optimizer holds 2 parameters that the model does not have and none of its own",
        ),
        (
            trace(1, True, False),
            "the optimizer holds 1 parameter that the model does not have and lacks 1 of its "
            "trainable ones",
        ),
    ],
)
def test_the_message_counts(observed, message) -> None:
    assert findings_of(ForeignParameters(), observed)[0].message == message
