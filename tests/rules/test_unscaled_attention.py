from __future__ import annotations

import math

import pytest

from gradlint.finding import Severity
from gradlint.rules.unscaled_attention import UnscaledAttention
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Trace


def trace(*peaks: float, step: int = 0, pretrained: bool = False) -> Trace:
    seen = observe("attention_peak", "block.attention", peaks, kind="softmax", step=step)
    return trace_of(seen, pretrained=pretrained)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(0.99, 0.98, 0.99), True, id="one-hot"),
        pytest.param(trace(0.8, 0.8), False, id="exactly-at-the-limit"),
        pytest.param(trace(0.2, 0.99, 0.2), False, id="one-batch-of-three"),
        pytest.param(trace(0.99, step=3), False, id="learned"),
        pytest.param(trace(0.99, pretrained=True), False, id="loaded"),
        pytest.param(trace(math.nan, math.nan), False, id="too-few-keys"),
        pytest.param(trace(), False, id="no-attention"),
    ],
)
def test_attention_is_judged_before_it_has_learned(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(UnscaledAttention(), observed)) is flagged


def test_the_message_says_how_sharp_it_is() -> None:
    (found,) = findings_of(UnscaledAttention(), trace(0.97, 0.98, 0.99))

    assert found.severity is Severity.WARNING
    assert found.module == "block.attention"
    assert found.message == (
        "the median query gives 98% of its attention to one key at step 0 (limit 80%)"
    )
