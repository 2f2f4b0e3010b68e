from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.rules.clipping_too_often import ClippingTooOften
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    ClippingFacts,
    LoopFacts,
    ModuleFacts,
    OptimizerFacts,
    ParameterFacts,
    Trace,
)

NOTE, WARNING = Severity.NOTE, Severity.WARNING
BY_NORM = ClippingFacts("norm")
STAYING = [2.3] * 40
FALLING = [2.3 * 0.95**i for i in range(40)]


def trace(
    norms: list[float],
    limit: float = 1.0,
    *,
    ratio: float = 1e-3,
    losses: list[float] = STAYING,
    kind: str = "SGD",
    pretrained: bool = False,
    clipping: ClippingFacts | None = BY_NORM,
    watched: bool = True,
    optimized: bool = True,
) -> Trace:
    return trace_of(
        observe("norm_before_clipping", "", norms, kind="model"),
        observe("clipping_limit", "", [limit] * len(norms), kind="model"),
        observe("update_to_weight_ratio", "0.weight", [ratio] * 20, module="0"),
        observe("weight_rms", "0.weight", [0.1], step=0, module="0"),
        observe("loss", "", losses[:1], kind="model", step=0),
        observe("loss", "", losses, kind="model"),
        modules=[ModuleFacts("0", "Linear", 0, 1)],
        parameters=[ParameterFacts("0.weight", (64, 64), module="0", fan_in=64)],
        optimizer=OptimizerFacts(kind) if optimized else None,
        pretrained=pretrained,
        loop=LoopFacts(steps=len(norms), clipping=clipping) if watched else None,
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(ClippingTooOften(), observed)]


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        pytest.param([3.0] * 40, [NOTE], id="every-step"),
        pytest.param([3.0] * 21 + [0.5] * 19, [NOTE], id="just-over-half"),
        pytest.param([3.0] * 20 + [0.5] * 20, [], id="exactly-half"),
        pytest.param([3.0] * 20, [NOTE], id="just-enough-steps"),
        pytest.param([3.0] * 19, [], id="too-few-steps"),
        pytest.param([1.0] * 40, [], id="exactly-at-the-limit"),
        pytest.param([0.5] * 39 + [900.0], [], id="single-outlier"),
        pytest.param([5.0] * 8 + [0.5] * 32, [], id="the-first-steps"),
        pytest.param([0.5, 2.0] * 20, [], id="every-second-step"),
        pytest.param([], [], id="not-observed"),
    ],
)
def test_the_share_of_steps_that_were_cut_is_judged(norms, expected) -> None:
    assert severities(trace(norms)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"ratio": 9e-6}, WARNING, id="tiny-updates"),
        pytest.param({"ratio": 1e-5, "losses": FALLING}, NOTE, id="exactly-the-ratio-and-learns"),
        pytest.param({"ratio": 9e-6, "losses": FALLING}, NOTE, id="tiny-updates-that-learn"),
        pytest.param({"ratio": 1e-4}, WARNING, id="low-updates-and-no-progress"),
        pytest.param({"ratio": 3e-4}, NOTE, id="exactly-the-low-ratio"),
        pytest.param({"ratio": 1e-3}, NOTE, id="usual-updates"),
        pytest.param({"ratio": 9e-6, "kind": "Adam"}, NOTE, id="adam-divides-it-out"),
        pytest.param({"ratio": 9e-6, "pretrained": True}, NOTE, id="fine-tuning"),
        pytest.param({"ratio": 9e-6, "limit": 2.0}, NOTE, id="exactly-a-hundredfold"),
        pytest.param({"ratio": 9e-6, "losses": []}, WARNING, id="loss-unknown-tiny"),
        pytest.param({"ratio": 1e-4, "losses": []}, NOTE, id="loss-unknown-low"),
        pytest.param({"ratio": 1e-4, "losses": [0.0] * 40}, NOTE, id="a-loss-of-zero-low"),
        pytest.param({"ratio": 1e-4, "losses": [-2.3] * 40}, NOTE, id="a-loss-below-zero-low"),
        pytest.param({"ratio": 9e-6, "losses": [-2.3] * 40}, WARNING, id="a-loss-below-zero-tiny"),
        pytest.param({"ratio": 9e-6, "optimized": False}, NOTE, id="updates-by-hand"),
    ],
)
def test_it_is_a_warning_only_where_clipping_stops_the_training(changes, expected) -> None:
    assert severities(trace([200.0] * 40, **changes)) == [expected]


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace([3.0] * 40, 0.25, losses=FALLING), id="word-language-model"),
        pytest.param(trace([5e3] * 40, 1.0, losses=FALLING), id="summed-loss"),
        pytest.param(trace([3.0] * 40, 1.0, kind="AdamW", ratio=1e-6), id="adamw-in-warm-up"),
        pytest.param(trace([500.0] * 35 + [0.5] * 5, ratio=9e-6), id="not-on-nine-of-ten"),
        pytest.param(trace([200.0] * 40, ratio=float("nan")), id="updates-unknown"),
    ],
)
def test_healthy_clipping_is_a_note_at_most(observed) -> None:
    assert severities(observed) == [NOTE]


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (trace([3.0] * 40, watched=False), "no training loop was watched"),
        (trace([3.0] * 40, clipping=None), "no clipping seen"),
        (trace([]), "not observed: norm_before_clipping"),
        (trace([3.0] * 40), None),
    ],
    ids=["check", "no-clipping", "by-value", "clipping"],
)
def test_it_says_why_it_is_skipped(observed, reason) -> None:
    assert ClippingTooOften().skip_reason(observed) == reason


def test_calls_that_only_measure_do_not_count() -> None:
    assert severities(trace([3.0] * 40, float("inf"))) == []


@given(st.lists(st.floats(0, 1, exclude_min=True), max_size=60), st.floats(1, 1e6))
def test_a_norm_below_the_limit_is_never_flagged(norms, limit) -> None:
    assert severities(trace(norms, limit, ratio=0)) == []


def test_the_message_names_share_norm_and_limit_and_the_help_a_better_one() -> None:
    (noted,) = findings_of(ClippingTooOften(), trace([3.0] * 30 + [0.5] * 9 + [40.0], kind="Adam"))
    (choked,) = findings_of(ClippingTooOften(), trace([200.0] * 40, 1e-3, ratio=2e-6))

    assert noted.message == (
        "78% of 40 steps were clipped: the norm is 3 on the median step, the limit 1; Adam "
        "divides the scale out"
    )
    assert noted.help == "Set the limit to about 3: it then cuts one step in twenty."
    assert choked.message == (
        "100% of 40 steps were clipped: the norm is 2e+02 on the median step, the limit 0.001; "
        "the median matrix changes by 2e-06 of its size a step, the loss went from 2.3 to 2.3"
    )
