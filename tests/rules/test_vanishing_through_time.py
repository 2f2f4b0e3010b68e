"""GL305 vanishing-through-time."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.vanishing_through_time import VanishingThroughTime
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, Trace

FLAT, FALLING = [1.4] * 40, [1.4 - 0.02 * step for step in range(40)]


def recurrent(losses: list[float] = FLAT, **seen: Any) -> Trace:
    known = {"steps": 59, "ratio": 1e-20, "kind": "RNN"}
    return trace_of(
        observe("loss", "", losses[:1], step=0),
        observe("loss", "", losses),
        modules=[ModuleFacts("rnn", "RNN", 1)],
        probes={"time-gradients": {"rnn": {**known, **seen}}},
    )


def said(trace: Trace) -> list[str]:
    return [f.severity.label for f in findings_of(VanishingThroughTime(), trace)]


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(recurrent(), ["warning"], id="gone-and-nothing-learned"),
        pytest.param(recurrent(ratio=0.0), ["warning"], id="underflowed"),
        pytest.param(recurrent(FALLING), ["note"], id="learns-from-the-last-steps"),
        pytest.param(recurrent(ratio=1e-7), [], id="exactly-at-the-limit"),
        pytest.param(recurrent(ratio=0.06), [], id="as-a-healthy-one"),
        pytest.param(recurrent(kind="LSTM"), ["note"], id="gates-learn-to-open"),
        pytest.param(recurrent(FALLING, kind="GRU"), [], id="gates-that-learn"),
        pytest.param(recurrent([1.4]), ["note"], id="too-few-losses-to-tell"),
        pytest.param(recurrent([1.4, 1.0, 1.8] * 13), ["warning"], id="noise-is-no-fall"),
    ],
)
def test_speaks_where_early_steps_have_no_gradient(trace: Trace, expected: list[str]) -> None:
    assert said(trace) == expected


def test_the_message_holds_ratio_and_limit() -> None:
    (found,) = findings_of(VanishingThroughTime(), recurrent())

    assert found.message == (
        "over 59 time steps the gradient falls to 1e-20 of its size (limit 1e-07): the first "
        "steps have none"
    )
    assert found.module == "rnn"


def test_is_skipped_without_recurrent_layers_and_on_made_up_batches() -> None:
    made_up = recurrent().but(facts=trace_of(synthesized=True, probes={"time-gradients": {}}).facts)

    assert judge(made_up, [VanishingThroughTime()]).skipped.keys() == {"GL305"}
    assert judge(trace_of(), [VanishingThroughTime()]).skipped.keys() == {"GL305"}
