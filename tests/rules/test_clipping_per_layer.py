from __future__ import annotations

import math

import pytest

from gradlint.finding import Severity
from gradlint.rules.clipping_per_layer import ClippingPerLayer
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ClippingFacts, LoopFacts, ParameterFacts, ScalerFacts, Trace

NOTE, WARNING = Severity.NOTE, Severity.WARNING


def trace(
    clipping: ClippingFacts | None,
    *,
    norms: list[float] = [3.0] * 40,
    tensors: int = 6,
    left: float | None = None,
    fell: bool = False,
    scaler: ScalerFacts | None = None,
    scale_unknown: bool = False,
) -> Trace:
    limit = clipping.limit if clipping is not None else math.nan
    losses = [2.3] + [1.0 if fell else 2.2] * 40
    return trace_of(
        observe("norm_before_clipping", "", norms, kind="model"),
        observe("clipping_limit", "", [limit] * len(norms), kind="model"),
        observe("backward_gradient_norm", "", [1.0] * 10, kind="model"),
        observe("total_gradient_norm", "", [] if left is None else [left] * 10, kind="model"),
        observe("loss", "", losses[:1], kind="model", step=0),
        observe("loss", "", losses[1:], kind="model"),
        parameters=[ParameterFacts(f"{i}.weight", (4, 4), module=str(i)) for i in range(tensors)],
        loop=LoopFacts(steps=40, clipping=clipping, scaler=scaler, scale_unknown=scale_unknown),
    )


def norm(calls: int, tensors: int = 1, limit: float = 1.0) -> ClippingFacts:
    return ClippingFacts("norm", limit, calls=calls * 40, steps=40, tensors=tensors)


def value(limit: float = 1.0) -> ClippingFacts:
    return ClippingFacts("value", limit, calls=40, steps=40, tensors=6)


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(ClippingPerLayer(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(norm(6)), [WARNING], id="each-tensor"),
        pytest.param(trace(norm(3)), [WARNING], id="exactly-half-of-them"),
        pytest.param(trace(norm(3), tensors=7), [], id="less-than-half"),
        pytest.param(trace(norm(6), norms=[0.5] * 36 + [3.0] * 4), [NOTE], id="a-tenth-is-cut"),
        pytest.param(trace(norm(6), norms=[0.5] * 35 + [3.0] * 5), [WARNING], id="over-a-tenth"),
        pytest.param(trace(norm(6), norms=[0.5] * 40), [NOTE], id="none-is-cut"),
        pytest.param(trace(value()), [NOTE], id="by-value"),
        pytest.param(trace(value(), left=0.05), [WARNING], id="by-value-and-little-is-left"),
        pytest.param(trace(value(), left=0.1), [NOTE], id="by-value-and-exactly-a-tenth"),
        pytest.param(trace(value(), left=0.05, fell=True), [NOTE], id="by-value-and-it-learns"),
        pytest.param(
            trace(value(), left=0.05, scale_unknown=True), [NOTE], id="a-scale-nobody-told-of"
        ),
        pytest.param(
            trace(value(), left=0.05, scaler=ScalerFacts(65536, 65536)), [NOTE], id="scaled-norms"
        ),
    ],
)
def test_what_is_clipped_together_is_judged(observed, expected) -> None:
    assert severities(observed) == expected


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(norm(1, tensors=6)), id="the-global-norm"),
        pytest.param(trace(norm(2, tensors=3)), id="two-models-or-groups"),
        pytest.param(trace(norm(1)), id="one-tensor-of-many"),
        pytest.param(trace(norm(2), tensors=2), id="a-model-of-two-tensors"),
        pytest.param(trace(norm(4), tensors=2), id="two-tensors-and-two-backwards-a-step"),
        pytest.param(trace(norm(6, limit=math.inf)), id="measured-only"),
        pytest.param(trace(value(math.inf)), id="by-value-and-nothing-cut"),
        pytest.param(trace(ClippingFacts("by-hand", steps=20)), id="by-hand"),
        pytest.param(trace(None), id="no-clipping"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_clipping_is_silent(observed) -> None:
    assert list(ClippingPerLayer().check(observed)) == []


def test_it_says_why_it_is_skipped() -> None:
    assert ClippingPerLayer().skip_reason(trace_of()) == "no training loop was watched"
    assert ClippingPerLayer().skip_reason(trace(None)) == "no clipping seen"
    assert ClippingPerLayer().skip_reason(trace(norm(6))) is None


def test_the_messages_say_what_was_clipped() -> None:
    (tensors,) = findings_of(ClippingPerLayer(), trace(norm(6)))
    (values,) = findings_of(ClippingPerLayer(), trace(value(0.01), left=0.05))

    assert tensors.message == (
        "each of 6 tensors is clipped by itself, at the same limit of 1, and 100% of 40 steps "
        "were cut"
    )
    assert values.message == (
        "gradients are clipped entry by entry at ±0.01, which leaves 5% of their norm"
    )
