from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.dropout_rate import DropoutRate
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import ModuleFacts, Trace


def dropout(rate: float, *, calls: int = 1, training: bool = True, path: str = "2") -> ModuleFacts:
    return ModuleFacts(path, "Dropout", 2, calls, training, options={"p": rate})


def severities(trace: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(DropoutRate(), trace)]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        pytest.param(dropout(0.9), Severity.NOTE, id="high"),
        pytest.param(dropout(0.5), None, id="exactly-at-the-limit"),
        pytest.param(dropout(0.0), None, id="none"),
        pytest.param(dropout(1.0), Severity.WARNING, id="everything"),
        pytest.param(dropout(0.9, calls=0), None, id="not-called"),
        pytest.param(dropout(0.9, training=False), None, id="eval-mode"),
        pytest.param(ModuleFacts("2", "DropPath", options={}), None, id="no-rate"),
        pytest.param(ModuleFacts("2", "Dropout", calls=1), None, id="rate-unknown"),
    ],
)
def test_the_rate_is_judged(module, expected) -> None:
    trace = trace_of(modules=(module,), operations=chain("linear", "relu", "mask", "linear"))

    assert severities(trace) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("kinds", "flagged"),
    [
        (("linear", "relu", "mask", "mse"), True),
        (("linear", "relu", "mask", "view", "mse"), True),
        (("linear", "relu", "mask", "linear", "mse"), False),
        (("linear", "relu", "mask", "mean", "mse"), False),
    ],
)
def test_dropout_on_the_output_is_a_warning(kinds, flagged) -> None:
    trace = trace_of(modules=(dropout(0.5),), operations=chain(*kinds))

    assert severities(trace) == ([Severity.WARNING] if flagged else [])


def test_the_messages_name_the_rate() -> None:
    high = trace_of(modules=(dropout(0.9),))
    output = trace_of(modules=(dropout(0.5),), operations=chain("linear", "relu", "mask", "mse"))

    assert findings_of(DropoutRate(), high)[0].message == "dropout rate 0.9 (limit 0.5)"
    assert findings_of(DropoutRate(), output)[0].message == (
        "dropout of rate 0.5 sets outputs of the model to 0 before the loss"
    )


def test_without_dropout_there_is_nothing_to_say() -> None:
    assert severities(trace_of(operations=chain("linear", "mse"))) == []


def test_a_high_rate_on_the_output_is_said_once() -> None:
    trace = trace_of(modules=(dropout(0.9),), operations=chain("linear", "relu", "mask", "mse"))

    assert severities(trace) == [Severity.WARNING]


def test_dropout_inside_the_loss_is_not_on_the_output() -> None:
    inside = Operation(2, "dropout", "dropout", None, (1,), in_loss=True)
    operations = (*chain("linear", "relu"), inside, Operation(3, "mse", "mse", None, (2,)))

    assert (
        severities(trace_of(operations=(*operations[:3], replace(operations[3], in_loss=True))))
        == []
    )


def test_the_p_of_a_norm_is_no_rate() -> None:
    norm = ModuleFacts("3", "PairwiseDistance", calls=1, options={"p": 2.0})

    assert severities(trace_of(modules=(dropout(0.3), norm))) == []
