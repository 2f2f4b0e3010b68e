"""GL806 stale-batch-statistics."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.stale_batch_statistics import StaleBatchStatistics
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, Trace

BN = ModuleFacts("bn", "BatchNorm1d", 1, calls=1, options={"momentum": 0.1}, input_shape=(64, 32))


def probed(**seen: Any) -> Trace:
    known = {"gap": 0.0, "settled": 0.0, "momentum": 0.1, "updates": 43, "samples": 192}
    return trace_of(modules=[BN], probes={"batch-statistics": {"bn": {**known, **seen}}})


def flagged(trace: Trace) -> bool:
    return bool(findings_of(StaleBatchStatistics(), trace))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param({"settled": 1.5}, True, id="far"),
        pytest.param({"settled": 1.0}, False, id="exactly-at-the-limit"),
        pytest.param({"gap": 3.0, "settled": 0.2}, False, id="not-yet-away-from-zeros-and-ones"),
        pytest.param({"gap": 0.5, "momentum": 0.0}, True, id="never-moves"),
        pytest.param({"gap": 0.25, "momentum": 0.0}, False, id="never-moves-and-need-not"),
        pytest.param({"gap": 0.5, "momentum": 1e-4}, False, id="slow-for-a-long-training"),
        pytest.param({"settled": 5.0, "momentum": None}, False, id="average-of-all-batches"),
        pytest.param({"settled": 1.2, "samples": 6}, False, id="few-samples"),
        pytest.param({}, False, id="as-they-should-be"),
    ],
)
def test_flags_statistics_that_do_not_follow(seen: dict[str, Any], expected: bool) -> None:
    assert flagged(probed(**seen)) is expected


def watched(
    gaps: list[float], steps: int = 100, ended: str = "", streams: int = 1, **module: Any
) -> Trace:
    facts = ModuleFacts(**{**{f: getattr(BN, f) for f in BN.__dataclass_fields__}, **module})
    return trace_of(
        observe("batch_statistics_gap", "bn", gaps, kind="BatchNorm1d", start=steps - len(gaps)),
        modules=[facts],
        command="run",
        loop=LoopFacts(steps=steps, ended=ended, streams=streams),
    )


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(watched([2.0] * 4), True, id="far"),
        pytest.param(watched([1.0] * 4), False, id="exactly-at-the-limit"),
        pytest.param(watched([0.1, 0.1, 5.0, 0.1]), False, id="a-single-batch"),
        pytest.param(watched([2.0] * 2), True, id="seen-twice"),
        pytest.param(watched([0.1, 2.0]), False, id="the-last-batch-only"),
        pytest.param(watched([2.0]), False, id="seen-too-little"),
        pytest.param(watched([2.0] * 76 + [0.1]), False, id="arrived-at-last"),
        pytest.param(watched([2.0] * 4, steps=49), False, id="a-short-run"),
        pytest.param(watched([2.0] * 4, ended="interrupted"), False, id="not-at-its-end"),
        pytest.param(watched([2.0] * 4, training=False), False, id="frozen-in-fine-tuning"),
        pytest.param(watched([2.0] * 4, streams=2), False, id="true-and-made-batches-in-turns"),
        pytest.param(watched([2.0] * 4, calls=2), False, id="statistics-of-two-calls"),
        pytest.param(watched([2.0] * 4, input_shape=(2, 32)), False, id="batches-of-two"),
        pytest.param(watched([2.0] * 4, options={"momentum": None}), False, id="average"),
        pytest.param(watched([0.5] * 4, options={"momentum": 0.0}), True, id="never-moves"),
        pytest.param(
            watched([0.5] * 4, steps=9, options={"momentum": 0.0}), True, id="nor-in-a-short-run"
        ),
    ],
)
def test_judges_the_end_of_a_watched_loop(trace: Trace, expected: bool) -> None:
    assert flagged(trace) is expected


def test_the_message_says_why_they_stay() -> None:
    (found,) = findings_of(StaleBatchStatistics(), probed(gap=0.553, momentum=0.0))

    assert found.message == (
        "running statistics are 0.55 standard deviations from the batches' in half of the "
        "channels (limit 0.25): with a momentum of 0 they stay where they began"
    )
    assert found.severity.label == "warning"
    assert found.module == "bn"


def test_is_skipped_where_nothing_was_compared() -> None:
    skipped = judge(trace_of(), [StaleBatchStatistics()]).skipped

    assert skipped == {"GL806": "no running statistics were compared with a batch's"}


def test_a_module_that_is_not_known_is_not_judged() -> None:
    trace = watched([2.0] * 4)

    assert flagged(trace)
    assert not flagged(trace.but(modules={}))
