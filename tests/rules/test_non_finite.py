"""GL501 non-finite."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.finding import Finding, Stage
from gradlint.rules.non_finite import NonFinite
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Event


def event(phase: str, *, step: int = 0, module: str | None = None, **detail: Any) -> Event:
    return Event("non-finite", step, module, {"phase": phase, "value": "nan", **detail})


def found(*events: Event) -> Finding:
    (finding,) = findings_of(NonFinite(), trace_of(events=events), exemptions=())
    return finding


@pytest.mark.parametrize(
    ("happened", "message"),
    [
        pytest.param(
            event("input", operation="x", fed_by="3 entries of the batch"),
            "first NaN at step 0 in the input 'x': 3 entries of the batch",
            id="input",
        ),
        pytest.param(event("target"), "first NaN at step 0 in the target", id="target"),
        pytest.param(
            event("parameter", operation="fc.weight", module="fc"),
            "first NaN at step 0 in parameter fc.weight",
            id="parameter",
        ),
        pytest.param(
            event("forward", module="head", operation="log", value="-inf", fed_by="log of 0"),
            "first -infinity at step 0 in forward: log in head, fed by log of 0",
            id="forward",
        ),
        pytest.param(
            event("loss", operation="div", fed_by="division by zero", step=3),
            "first NaN at step 3 in loss: div in the loss, fed by division by zero",
            id="loss",
        ),
        pytest.param(
            event("backward", module="enc", operation="sqrt", step=7),
            "first NaN at step 7 in backward: sqrt in enc",
            id="backward",
        ),
        pytest.param(
            event("update", value="inf", fed_by="learning rate 1e+04"),
            "first infinity at step 0 in update: the model, fed by learning rate 1e+04",
            id="update",
        ),
    ],
)
def test_the_message_names_place_and_step(happened: Event, message: str) -> None:
    finding = found(happened)

    assert finding.message == message
    assert finding.severity.label == "error"
    assert finding.exact


def test_the_earliest_event_speaks() -> None:
    finding = found(
        event("backward", step=2), event("loss", step=1), event("forward", step=1, module="fc")
    )

    assert finding.module == "fc"
    assert finding.step == 1
    assert finding.stage is Stage.FORWARD


def test_data_come_before_what_is_computed_from_them() -> None:
    assert found(event("forward"), event("input", operation="x")).stage is Stage.DATA


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        pytest.param(event("forward", operation="log"), "Clamp the argument", id="log"),
        pytest.param(event("backward", operation="sqrt"), "eps inside the root", id="sqrt"),
        pytest.param(event("loss", operation="nll"), "from logits", id="loss"),
        pytest.param(event("input"), "impute", id="input"),
        pytest.param(event("forward", operation="mul"), "operation's range", id="other"),
    ],
)
def test_the_help_fits_the_operation(happened: Event, words: str) -> None:
    assert words in found(happened).help


@pytest.mark.parametrize(
    ("phase", "loss", "norm", "expected"),
    [
        pytest.param("parameter", 1.0, 1.0, False, id="mask-of-minus-infinity"),
        pytest.param("input", 1.0, 1.0, False, id="masked-out-of-the-loss"),
        pytest.param("forward", float("nan"), 1.0, True, id="loss-is-nan"),
        pytest.param("forward", 1.0, float("inf"), True, id="gradient-is-infinite"),
        pytest.param("update", 1.0, 1.0, True, id="seen-after-the-last-loss"),
    ],
)
def test_what_reaches_neither_loss_nor_gradient_is_left_alone(
    phase: str, loss: float, norm: float, expected: bool
) -> None:
    trace = trace_of(
        observe("loss", "", [loss], kind="model"),
        observe("total_gradient_norm", "", [norm], kind="model"),
        events=(event(phase),),
    )

    assert bool(findings_of(NonFinite(), trace, exemptions=())) is expected


def test_nothing_is_said_without_an_event() -> None:
    assert findings_of(NonFinite(), trace_of(), exemptions=()) == ()
    other = trace_of(events=(Event("exception"),))
    assert findings_of(NonFinite(), other, exemptions=()) == ()
