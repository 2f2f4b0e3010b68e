from __future__ import annotations

import math

import pytest

from gradlint.finding import Severity
from gradlint.rules.clipped_before_unscale import ClippedBeforeUnscale
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ClippingFacts, LoopFacts, ScalerFacts, Trace

SCALER = ScalerFacts(65536.0, 32768.0, steps=40)


def trace(
    scaled: int = 40,
    limit: float = 1.0,
    scaler: ScalerFacts | None = SCALER,
    kind: str = "norm",
) -> Trace:
    clipping = ClippingFacts(kind, limit, calls=40, steps=40, tensors=6, scaled=scaled)
    return trace_of(loop=LoopFacts(steps=40, clipping=clipping, scaler=scaler))


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(), id="every-call"),
        pytest.param(trace(1), id="one-call"),
        pytest.param(trace(kind="value"), id="by-value"),
        pytest.param(trace(scaler=ScalerFacts(1.0, 2.0)), id="a-scale-that-grew"),
        pytest.param(trace(scaler=ScalerFacts(65536.0, 1.0)), id="a-scale-that-fell-to-one"),
        pytest.param(trace(limit=math.nan), id="a-limit-on-another-device"),
        pytest.param(trace(limit=3000.0), id="a-limit-below-a-tenth-of-the-scale"),
    ],
)
def test_clipping_of_scaled_gradients_is_an_error(observed) -> None:
    (found,) = findings_of(ClippedBeforeUnscale(), observed)

    assert found.severity is Severity.ERROR
    assert found.exact


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(0), id="unscaled-first"),
        pytest.param(trace(scaler=ScalerFacts(1.0, 1.0)), id="a-scale-of-one"),
        pytest.param(trace(scaler=None), id="no-scaler"),
        pytest.param(trace(limit=math.inf), id="measured-only"),
        pytest.param(
            trace(limit=math.inf, scaler=ScalerFacts(4.0, 4.0)), id="measured-under-a-small-scale"
        ),
        pytest.param(trace(limit=32768.0), id="a-limit-times-the-scale"),
        pytest.param(trace_of(loop=LoopFacts(scaler=SCALER)), id="no-clipping"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_loops_are_silent(observed) -> None:
    assert list(ClippedBeforeUnscale().check(observed)) == []


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (trace_of(), "no training loop was watched"),
        (trace(scaler=None), "no GradScaler seen"),
        (trace_of(loop=LoopFacts(scaler=SCALER)), "no clipping seen"),
        (trace(), None),
    ],
    ids=["check", "no-scaler", "no-clipping", "both"],
)
def test_it_says_why_it_is_skipped(observed, reason) -> None:
    assert ClippedBeforeUnscale().skip_reason(observed) == reason


def test_the_message_says_where_the_limit_really_is() -> None:
    (found,) = findings_of(ClippedBeforeUnscale(), trace(12))

    assert found.message == (
        "12 of 40 clipping calls saw gradients that are 65536 times too large (the GradScaler's "
        "scale), so a limit of 1 cuts at 1.5e-05"
    )
