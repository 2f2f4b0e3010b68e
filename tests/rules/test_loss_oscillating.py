from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.loss_oscillating import LossOscillating
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, LossFacts, ModuleFacts, OptimizerFacts, ParameterFacts, Trace

SWINGING = [1.0] + [0.8, 3.0, 1.1] * 13
LOSS = LossFacts("mse")
SUM = (Operation(0, "mse", "mse", in_loss=True), Operation(1, "add", "add", in_loss=True))


def trace(
    losses: list[float] = SWINGING,
    ratio: float = 0.06,
    *,
    facts: tuple[LossFacts, ...] = (LOSS,),
    groups: tuple[dict[str, bool], ...] = (),
    rates: list[float] = [0.1] * 40,
    streams: int = 1,
    operations: tuple[Operation, ...] = (),
    watched: bool = True,
    optimized: bool = True,
) -> Trace:
    return trace_of(
        observe("loss", "", losses[:1], kind="model", step=0),
        observe("loss", "", losses, kind="model"),
        observe("learning_rate", "", rates, kind="model"),
        observe("update_to_weight_ratio", "0.weight", [ratio] * 40, module="0"),
        observe("weight_rms", "0.weight", [0.1], step=0, module="0"),
        operations=operations,
        modules=[ModuleFacts("0", "Linear", 0, 1)],
        parameters=[ParameterFacts("0.weight", (64, 64), module="0", fan_in=64)],
        losses=facts,
        optimizer=OptimizerFacts("SGD", groups=groups) if optimized else None,
        loop=LoopFacts(steps=len(losses), streams=streams) if watched else None,
    )


def among(usual: float, rare: float) -> list[float]:
    """Sixty steps, and sixty more of which three are unlike the others."""
    return [1.0, *[usual] * 59, *([usual] * 9 + [rare]) * 3, *[usual] * 30]


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(LossOscillating(), observed)]


def noisy(spread: float) -> list[float]:
    chance = random.Random(0)
    return [1.0] + [chance.lognormvariate(0, spread) for _ in range(100)]


@pytest.mark.parametrize(
    ("losses", "ratio", "flagged"),
    [
        pytest.param(SWINGING, 0.06, True, id="swings"),
        pytest.param([1.0] + [0.8, 1.6] * 20, 0.06, True, id="just-over-the-swing"),
        pytest.param([1.0] + [0.8, 1.5] * 20, 0.06, False, id="exactly-the-swing"),
        pytest.param(SWINGING, 0.03, False, id="exactly-the-ratio"),
        pytest.param(SWINGING[:20], 0.06, True, id="just-enough-steps"),
        pytest.param(SWINGING[:19], 0.06, False, id="too-few-steps"),
        pytest.param([1.0, *[0.7] * 18, 9.0, *[0.9] * 20], 0.06, False, id="single-outlier"),
        pytest.param([], 0.06, False, id="not-observed"),
    ],
)
def test_swings_under_large_updates_are_judged(losses, ratio, flagged) -> None:
    assert severities(trace(losses, ratio)) == ([Severity.WARNING] if flagged else [])


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace([1.0 * 0.95**i for i in range(60)]), id="falls"),
        pytest.param(trace(SWINGING, 1e-3), id="single-samples-under-small-updates"),
        pytest.param(trace(noisy(1.0), 5e-3), id="noise"),
        pytest.param(trace([1.0] + [0.1, 2.0, 0.2, 0.1] * 15), id="swings-and-falls"),
        pytest.param(trace([1.0 + 0.1 * i for i in range(60)]), id="only-rises"),
        pytest.param(trace([1.0] * 60), id="stays"),
        pytest.param(trace([-5.0] + [-4.0, 9.0] * 30), id="a-loss-below-zero"),
        pytest.param(trace(facts=()), id="a-policy"),
        pytest.param(trace(operations=SUM), id="a-critic-and-a-policy"),
        pytest.param(trace(facts=(LOSS, LossFacts("kl_div"))), id="two-terms"),
        pytest.param(trace([*SWINGING, -0.1, 3.0, 0.8]), id="a-loss-that-crosses-zero"),
        pytest.param(trace(streams=2), id="two-players"),
        pytest.param(trace(groups=({"maximize": True},)), id="climbing-on-purpose"),
        pytest.param(trace(rates=[0.01 * i for i in range(1, 41)]), id="warm-up"),
        pytest.param(trace(optimized=False), id="updated-by-hand"),
        pytest.param(trace([0.0] + [0.0, 3.0, 0.0] * 13), id="a-loss-that-starts-at-zero"),
        pytest.param(trace([*SWINGING, math.inf]), id="not-finite-is-another-rule-s"),
        pytest.param(trace(among(0.9, 3.0)), id="three-jumps-in-sixty-steps"),
        pytest.param(trace(among(3.0, 0.9)), id="three-dips-in-sixty-steps"),
        pytest.param(trace([1.0] + [0.9] * 29 + [3.0] * 10), id="one-step-up"),
        pytest.param(trace(watched=False), id="check"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_losses_are_silent(observed) -> None:
    assert severities(observed) == []


@given(st.lists(st.floats(0.01, 100), max_size=60), st.floats(0, 0.03))
def test_small_updates_are_never_flagged(losses, ratio) -> None:
    assert severities(trace(losses, ratio)) == []


@given(st.lists(st.floats(0.7, 1.4), max_size=60))
def test_a_loss_near_its_first_value_is_never_flagged(losses) -> None:
    assert severities(trace([1.0, *losses])) == []


def test_it_says_why_it_is_skipped() -> None:
    assert LossOscillating().skip_reason(trace(watched=False)) == "no training loop was watched"
    assert LossOscillating().skip_reason(trace([])) == "not observed: loss"
    assert LossOscillating().skip_reason(trace()) is None


def test_the_message_names_the_swing_and_the_updates() -> None:
    (found,) = findings_of(LossOscillating(), trace())

    assert found.message == (
        "the loss swings between 0.8 and 3 (median 1.1) in the second half of 40 steps, and was "
        "1 at first; the median matrix changes by 6% of its size a step"
    )
