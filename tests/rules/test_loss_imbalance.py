"""GL614 loss-imbalance."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.loss_imbalance import LossImbalance
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Trace

STARVED = {
    "ratio": 2e6, "large": "term 1 (mse)", "small": "term 2 (nll)", "factor": 1.0,
    "boost": 1.0, "terms": 2,
    "value": 1.1, "alone": 0.3, "together": -0.01,
}  # fmt: skip


def probed(**seen: Any) -> Trace:
    return trace_of(probes={"loss-terms": {**STARVED, **seen}})


def said(trace: Trace) -> list[str]:
    return [f.severity.label for f in findings_of(LossImbalance(), trace)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param({}, ["warning"], id="starved"),
        pytest.param({"ratio": 2e3}, ["note"], id="less-far-apart"),
        pytest.param({"ratio": 1e4}, ["note"], id="at-the-limit-of-a-warning"),
        pytest.param({"ratio": 1e3}, [], id="exactly-at-the-limit"),
        pytest.param({"factor": 0.01}, [], id="meant-to-be-small"),
        pytest.param({"factor": 1e-6, "boost": 1e6}, ["warning"], id="the-other-made-large"),
        pytest.param({"factor": 0.1, "boost": 9.0}, [], id="the-other-made-a-little-large"),
        pytest.param({"alone": 0.04}, [], id="at-its-minimum-already"),
        pytest.param({"alone": 0.05, "together": 0.0}, ["warning"], id="falls-enough-alone"),
        pytest.param({"together": 0.1}, [], id="falls-beside-the-other-too"),
        pytest.param({"together": 0.03}, ["warning"], id="falls-a-tenth-of-that"),
        pytest.param({"alone": None, "together": None}, [], id="was-not-tried"),
        pytest.param({"alone": None}, [], id="was-not-tried-alone"),
        pytest.param({"together": None}, [], id="was-not-tried-together"),
    ],
)
def test_speaks_of_terms_that_are_outweighed_and_starve(
    seen: dict[str, Any], expected: list[str]
) -> None:
    assert said(probed(**seen)) == expected


def test_the_message_tells_both_trials() -> None:
    (found,) = findings_of(LossImbalance(), probed())

    assert found.message == (
        "of 2 terms of the loss term 1 (mse) has 2e+06 times the gradient of term 2 (nll) on the "
        "weights they share (limit 1000): in 40 steps term 2 (nll) falls by 0.3 of its value "
        "alone, and rises by 0.01 beside it"
    )


def test_is_skipped_without_terms_and_on_made_up_batches() -> None:
    made_up = trace_of(probes={"loss-terms": STARVED}, synthesized=True)

    assert judge(made_up, [LossImbalance()]).skipped.keys() == {"GL614"}
    assert judge(trace_of(), [LossImbalance()]).skipped.keys() == {"GL614"}
