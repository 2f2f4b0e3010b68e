"""GL205 attention-collapse."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.attention_collapse import AttentionCollapse
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Trace

FLAT, FALLING = [1.1] * 40, [1.1 - 0.02 * step for step in range(40)]


def attends(peak: float, start: float = 0.2, losses: list[float] = FLAT, **facts: Any) -> Trace:
    return trace_of(
        observe("attention_peak", "attend", [start] * 3, kind="softmax", step=0),
        observe("loss", "", losses[:1], step=0),
        observe("loss", "", losses),
        probes={"attention-peaks": {"attend": peak}},
        **facts,
    )


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(attends(0.99), True, id="one-hot-and-nothing-learned"),
        pytest.param(attends(0.99, losses=[1.1 + i for i in range(40)]), True, id="loss-rises"),
        pytest.param(attends(0.95), False, id="exactly-at-the-limit"),
        pytest.param(attends(0.99, start=0.5), False, id="sharp-from-the-start"),
        pytest.param(attends(0.99, losses=FALLING), False, id="sharp-and-learning"),
        pytest.param(attends(0.99, losses=[1.1]), False, id="too-few-steps"),
        pytest.param(attends(0.6), False, id="sharper"),
        pytest.param(attends(0.99, pretrained=True), False, id="trained-heads"),
    ],
)
def test_flags_attention_that_got_one_hot_for_nothing(trace: Trace, expected: bool) -> None:
    assert bool(findings_of(AttentionCollapse(), trace)) is expected


def test_the_message_holds_both_ends() -> None:
    (found,) = findings_of(AttentionCollapse(), attends(0.984))

    assert found.message == (
        "the median query gives 98% of its attention to one key, 20% at step 0 (limit 95%), and "
        "the loss has not fallen"
    )
    assert found.severity.label == "warning"
    assert found.module == "attend"


def test_is_skipped_where_attention_was_not_measured_again() -> None:
    assert judge(trace_of(), [AttentionCollapse()]).skipped == {
        "GL205": "no attention was measured after training"
    }
