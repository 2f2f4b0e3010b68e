from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.rules.gradient_spike import GradientSpike
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, ParameterFacts, Trace

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


INF = float("inf")
RUINED = [1.0] * 10 + [300.0] + [1e6] * 9
JUMPED = [1.0] * 10 + [50.0] + [2.0] * 9


def ruined(
    losses: list[float] = RUINED,
    outputs: list[float] = JUMPED,
    *,
    norms: list[float] | None = None,
    moved: float = 0.01,
    kind: str = "Linear",
    given: bool = True,
    ours: bool = False,
    missing: int = 0,
    fan_in: int = 16,
) -> Trace:
    facts = ModuleFacts(
        "0", kind, 0, 1, parameters=("0.weight", "0.bias"), input_given=given, ours=ours
    )
    seen = [(i, v) for i, v in enumerate(outputs, 1) if i != missing]
    return trace_of(
        observe("total_gradient_norm", "", norms or [1.0] * 10 + [4e3] + [1e7] * 9, kind="model"),
        observe("loss", "", losses, kind="model"),
        *[observe("activation_rms", "0", [v], step=i) for i, v in seen],
        observe("update_to_weight_ratio", "0.weight", [moved] * 20),
        modules=[facts],
        parameters=[
            ParameterFacts("0.bias", (8,), module="0"),
            ParameterFacts("0.weight", (8, fan_in), module="0", fan_in=fan_in),
        ],
        loop=LoopFacts(steps=20),
    )


def test_a_batch_that_ruins_the_run_is_an_error() -> None:
    (found,) = findings_of(GradientSpike(), ruined())

    assert (found.severity, found.step, found.module) == (Severity.ERROR, 11, "0")
    assert found.message == (
        "the gradient's norm jumps to 4e+03 at step 11, 4e+03 times its usual size (limit 10), and "
        "the loss never comes back: 0 answers the batch of that step with 50 times its largest "
        "output before, and its weights had changed by 0.01 of themselves"
    )


@pytest.mark.parametrize(
    "losses",
    [[1.0] * 10 + [300.0, 1e9, INF, *[float("nan")] * 7], [-1.0] * 10 + [300.0] + [20.0] * 9],
    ids=["not-finite", "likelihood"],
)
def test_a_loss_that_ends_far_above_never_came_back(losses: list[float]) -> None:
    (found,) = findings_of(GradientSpike(), ruined(losses))

    assert found.severity is Severity.ERROR


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(ruined([1.0] * 10 + [300.0] + [0.9] * 9), id="forgotten"),
        pytest.param(ruined([1.0] * 10 + [300.0] + [5.0] * 9), id="nearly-forgotten"),
        pytest.param(ruined([INF] * 10 + [300.0] + [INF] * 9), id="not-finite-before"),
        pytest.param(ruined([0.0] * 10 + [300.0] + [5.0] * 9), id="no-loss-before"),
        pytest.param(ruined(RUINED[:11]), id="no-loss-after"),
        pytest.param(ruined([], JUMPED), id="no-loss"),
        pytest.param(ruined(outputs=[1.0] * 10 + [9.0] + [2.0] * 9), id="a-batch-like-the-others"),
        pytest.param(ruined(outputs=[1.0] * 10 + [50.0] * 10), id="other-data-from-there-on"),
        pytest.param(ruined(outputs=[1.0] * 10 + [50.0]), id="nothing-after"),
        pytest.param(ruined(outputs=[0.0] * 10 + [50.0] + [2.0] * 9), id="nothing-before"),
        pytest.param(ruined(outputs=[1.0] * 3 + [30.0] + [1.0] * 6 + JUMPED[10:]), id="at-times"),
        pytest.param(ruined(moved=1.5), id="weights-that-moved-far"),
        pytest.param(ruined(fan_in=1 << 18), id="so-many-inputs-that-a-small-step-is-enough"),
        pytest.param(ruined(missing=10), id="the-step-before-was-not-looked-at"),
        pytest.param(ruined(missing=11), id="the-step-was-not-looked-at"),
        pytest.param(ruined(kind="LayerNorm"), id="not-linear"),
        pytest.param(ruined(given=False), id="a-layer-of-the-middle"),
        pytest.param(ruined(ours=True), id="a-layer-of-their-own"),
        pytest.param(ruined(norms=[1.0] * 10 + [9.0] + [1e7] * 9), id="no-jump-of-the-gradient"),
        pytest.param(
            ruined(norms=[1.0] * 3 + [1e4] + [1.0] * 6 + [4e3] + [1e7] * 9), id="not-the-first"
        ),
        pytest.param(ruined(norms=[0.0] * 10 + [4e3] * 10), id="no-gradient-before"),
    ],
)
def test_what_is_not_one_batch_s_doing_is_no_error(seen: Trace) -> None:
    assert [f for f in findings_of(GradientSpike(), seen) if f.severity > Severity.NOTE] == []


@pytest.mark.parametrize(
    ("metric", "until"),
    [("activation_rms", 7), ("update_to_weight_ratio", 20), ("loss", 10)],
    ids=["outputs-of-three-steps", "weights-that-were-not-looked-at", "no-loss-before"],
)
def test_what_was_not_seen_is_not_said(metric: str, until: int) -> None:
    seen = ruined()
    kept = [o for o in seen.observations if o.metric != metric or o.step > until]

    assert not findings_of(GradientSpike(), seen.but(observations=kept))


def test_a_layer_without_a_matrix_is_not_asked() -> None:
    seen = ruined()

    assert not findings_of(GradientSpike(), seen.but(parameters={}))


def test_five_steps_tell_what_is_usual() -> None:
    def early(steps: int) -> Trace:
        norms = [1.0] * steps + [4e3] + [1e7] * 9
        return ruined([1.0] * steps + RUINED[10:], [1.0] * steps + JUMPED[10:], norms=norms)

    assert len(findings_of(GradientSpike(), early(5))) == 1
    assert not findings_of(GradientSpike(), early(4))
