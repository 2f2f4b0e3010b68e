"""Step functions: what they leave without gradient is found, what leads around them is not."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.missing_gradient import MissingGradient
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ParameterFacts, Trace


def operation(identity: int, kind: str, *inputs: int, **others: Any) -> Operation:
    weights = (f"{identity}.weight",) if kind == "linear" else ()
    return Operation(identity, kind, kind, str(identity), inputs, weights, **others)


ROUNDED = (
    operation(0, "linear"),
    operation(1, "round", 0),
    operation(2, "linear", 1),
    operation(3, "mse", 2, in_loss=True),
)


def trace(operations: tuple[Operation, ...] = ROUNDED, norms: tuple[float, ...] = (0, 0)) -> Trace:
    return trace_of(
        observe("gradient_norm", "0.weight", norms, start=0),
        observe("gradient_norm", "2.weight", [1.0, 1.0], start=0),
        operations=operations,
        parameters=[ParameterFacts(f"{i}.weight", (4, 4), module=str(i)) for i in (0, 2)],
    )


def test_what_is_in_front_of_a_step_function_learns_nothing() -> None:
    (found,) = findings_of(MissingGradient(), trace())

    assert found.severity is Severity.ERROR
    assert found.modules == ("0",)
    assert found.message == (
        "1 trainable parameter in front of round received a gradient of exactly 0: "
        "the derivative of round is 0 everywhere"
    )


@pytest.mark.parametrize("kind", ["floor", "ceil", "trunc", "sign", "sgn"])
def test_every_step_function_counts(kind: str) -> None:
    assert findings_of(MissingGradient(), trace((ROUNDED[0], operation(1, kind, 0), *ROUNDED[2:])))


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param(trace(norms=(0.0, 1e-12)), id="some-gradient"),
        pytest.param(trace(norms=()), id="no-gradient-observed"),
        pytest.param(
            trace((*ROUNDED[:2], operation(2, "add", 0, 1), operation(3, "mse", 2, in_loss=True))),
            id="a-way-around",
        ),
        pytest.param(
            trace((ROUNDED[0], operation(1, "relu", 0), *ROUNDED[2:])), id="another-function"
        ),
        pytest.param(trace(()), id="no-graph"),
    ],
)
def test_anything_else_is_silent(silent: Trace) -> None:
    assert not findings_of(MissingGradient(), silent)
