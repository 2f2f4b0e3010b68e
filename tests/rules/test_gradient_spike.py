from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.rules.gradient_spike import GradientSpike
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ParameterFacts, Trace

SPIKE = [1.0] * 20 + [50.0] + [1.0] * 19


def noisy(spread: float, level: float = 1.0, decay: float = 1.0) -> list[float]:
    chance = random.Random(0)
    return [level * decay**i * chance.lognormvariate(0, spread) for i in range(200)]


def trace(
    norms: list[float],
    *,
    head: float = 1.0,
    streams: int = 1,
    watched: bool = True,
    unknown: bool = False,
) -> Trace:
    others = [0.1] * 20 + [head] + [0.1] * 19
    return trace_of(
        observe("total_gradient_norm", "", norms, kind="model"),
        observe("gradient_norm", "0.weight", [v**0.9 for v in norms[:40]], module="0"),
        observe("gradient_norm", "1.weight", others[: len(norms)], module="1"),
        parameters=[ParameterFacts(f"{i}.weight", (4, 4), module=str(i)) for i in range(2)],
        loop=LoopFacts(steps=len(norms), streams=streams, scale_unknown=unknown)
        if watched
        else None,
    )


def test_a_spike_is_a_note_that_names_step_and_layer() -> None:
    (found,) = findings_of(GradientSpike(), trace(SPIKE))

    assert (found.severity, found.step, found.module) == (Severity.NOTE, 21, "0")
    assert found.message == (
        "the gradient's norm jumps to 50 at step 21, 50 times its usual size (limit 10), most of "
        "all in 0.weight"
    )


def test_the_parameter_that_rose_the_most_is_named() -> None:
    (found,) = findings_of(GradientSpike(), trace(SPIKE, head=50.0))

    assert found.parameter == "1.weight"


def test_a_gradient_that_is_rounding_is_not_named() -> None:
    seen = trace(SPIKE)
    bias = [1e-9] * 20 + [1e-5] + [1e-9] * 19
    seen = trace_of(
        list(seen.observations),
        observe("gradient_norm", "0.bias", bias, module="0"),
        parameters=[*seen.parameters.values(), ParameterFacts("0.bias", (4,), module="0")],
        loop=seen.facts.loop,
    )

    assert [f.parameter for f in findings_of(GradientSpike(), seen)] == ["0.weight"]


def test_the_largest_spike_speaks_for_the_others() -> None:
    twice = [1.0] * 15 + [20.0] + [1.0] * 14 + [70.0] + [1.0] * 9
    (found,) = findings_of(GradientSpike(), trace(twice))

    assert found.step == 31
    assert found.message.endswith("(and 1 more)")
    assert found.evidence["steps"] == [16, 31]


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(noisy(0.5)), id="noise"),
        pytest.param(trace(noisy(1.5)), id="noise-by-decades"),
        pytest.param(trace(noisy(1.0, decay=0.97)), id="a-model-that-fits-at-last"),
        pytest.param(trace([30.0, 12.0, 5.0] + [1.0] * 60), id="the-first-steps"),
        pytest.param(trace([1.1**i for i in range(60)]), id="growth"),
        pytest.param(trace([1.0] * 30 + [20.0] * 30), id="another-level"),
        pytest.param(trace([1.0] * 20 + [10.0] + [1.0] * 19), id="exactly-at-the-limit"),
        pytest.param(trace(SPIKE[15:]), id="too-few-steps-before"),
        pytest.param(trace([]), id="not-observed"),
        pytest.param(trace(SPIKE, streams=2), id="two-players"),
        pytest.param(trace(SPIKE, unknown=True), id="a-scale-that-nobody-told-of"),
        pytest.param(trace(SPIKE, watched=False), id="check"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_norms_are_silent(observed) -> None:
    assert findings_of(GradientSpike(), observed) == ()


@given(st.lists(st.floats(0.3, 3.0), max_size=100))
def test_norms_within_a_decade_are_never_flagged(norms) -> None:
    assert findings_of(GradientSpike(), trace(norms)) == ()


def test_it_says_why_it_is_skipped() -> None:
    assert GradientSpike().skip_reason(trace(SPIKE, watched=False)) == (
        "no training loop was watched"
    )
    assert GradientSpike().skip_reason(trace([])) == "not observed: total_gradient_norm"
    assert GradientSpike().skip_reason(trace(SPIKE)) is None
