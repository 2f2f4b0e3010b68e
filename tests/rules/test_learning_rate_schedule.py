from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.rules.learning_rate_schedule import LearningRateSchedule
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, OptimizerFacts, Trace

SLOW = [2.3 - 0.2 * (1 - 0.9**i) for i in range(200)]
FALLING = [2.3 * 0.9**i + 0.01 for i in range(200)]
FLAT = [2.3] + [1.2] * 199


def trace(
    rates: list[float],
    losses: list[float] | None = None,
    *,
    schedulers: tuple[str, ...] = ("StepLR",),
    every: int = 1,
    watched: bool = True,
) -> Trace:
    seen = SLOW if losses is None else losses
    sparse = [
        *observe("learning_rate", "", rates, kind="model"),
        *observe("loss", "", seen[: len(rates)], kind="model"),
    ]
    return trace_of(
        [o for o in sparse if o.step % every == 0],
        observe("loss", "", seen[:1], kind="model", step=0),
        optimizer=OptimizerFacts("SGD"),
        loop=LoopFacts(steps=len(rates), schedulers=schedulers) if watched else None,
    )


def two_players(one: list[float], other: list[float]) -> Trace:
    """Steps that alternate between two optimizers, each with a loss of its own."""
    rates = [rate for pair in zip(one, other, strict=True) for rate in pair]
    losses = [
        observe("stream_loss", name, [1.0], kind="model", step=step)
        for i in range(len(one))
        for name, step in (("netD", 2 * i + 1), ("netG", 2 * i + 2))
    ]
    return trace_of(
        *losses,
        observe("learning_rate", "", rates, kind="model"),
        modules=[ModuleFacts("netD", "Net"), ModuleFacts("netG", "Net")],
        optimizer=OptimizerFacts("Adam"),
        loop=LoopFacts(steps=len(rates), streams=2),
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(LearningRateSchedule(), observed)]


def geometric(factor: float, steps: int, peak: float = 0.1) -> list[float]:
    return [peak * factor**i for i in range(steps)]


def linear(steps: int, end: int | None = None, peak: float = 0.1) -> list[float]:
    return [peak * max(0.0, 1 - i / (end or steps)) for i in range(steps)]


def cosine(steps: int, peak: float = 0.1) -> list[float]:
    return [peak * 0.5 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)]


def stairs(factor: float, every: int, steps: int) -> list[float]:
    return [0.1 * factor ** (i // every) for i in range(steps)]


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param(geometric(0.7, 60), id="an-epoch-s-factor-at-every-batch"),
        pytest.param(geometric(0.9, 200), id="a-tenth-less-at-every-batch"),
        pytest.param([0.01] * 2 + geometric(0.7, 60), id="it-starts-below-its-peak"),
        pytest.param([max(r, 1e-9) for r in geometric(0.7, 100)], id="down-to-a-floor"),
        pytest.param(geometric(0.1, 60), id="underflow"),
        pytest.param(stairs(0.1, 7, 120), id="stairs-of-seven-batches"),
        pytest.param(linear(100, end=10), id="linear-over-the-epochs"),
        pytest.param([0.1] * 20 + [0.0] * 40, id="zero-for-most-of-the-run"),
    ],
)
def test_a_rate_that_is_taken_away_is_flagged(rates) -> None:
    assert severities(trace(rates)) == [Severity.WARNING]


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param([0.1] * 100, id="constant"),
        pytest.param(linear(100), id="linear-decay-over-the-run"),
        pytest.param(cosine(100), id="cosine-decay-over-the-run"),
        pytest.param(cosine(20), id="a-demonstration-of-twenty-steps"),
        pytest.param(linear(100, end=80), id="linear-decay-that-ends-a-fifth-early"),
        pytest.param([0.1 * i / 40 for i in range(40)], id="warm-up"),
        pytest.param([0.1 * i / 10 for i in range(10)] + linear(90), id="warm-up-and-linear"),
        pytest.param(
            [0.004 + 0.1 * i / 30 for i in range(30)] + cosine(70, peak=0.104), id="one-cycle"
        ),
        pytest.param(cosine(25) * 4, id="warm-restarts"),
        pytest.param(geometric(0.7, 40) + [0.05] * 60, id="comes-back"),
        pytest.param([1e-7 * 1.3**i for i in range(60)], id="a-sweep-up"),
        pytest.param([1e-7 * 1.3**i for i in range(60)] + [1e-3] * 80, id="a-sweep-and-the-run"),
        pytest.param(geometric(0.01 ** (1 / 100), 100), id="a-hundredth-at-the-end"),
        pytest.param(geometric(0.999, 150), id="a-slow-factor"),
        pytest.param(stairs(0.1, 30, 100), id="stairs-over-the-run"),
        pytest.param([0.1] * 30 + [1e-6] * 70, id="a-second-phase-at-another-level"),
        pytest.param([0.2 * (i + 1) ** -0.5 for i in range(100)], id="inverse-square-root"),
        pytest.param(geometric(0.7, 19), id="too-few-steps"),
        pytest.param([0.0] * 60, id="zero-from-the-start-is-gl402"),
        pytest.param([], id="not-observed"),
    ],
)
def test_healthy_schedules_are_silent(rates) -> None:
    assert severities(trace(rates)) == []


@pytest.mark.parametrize(
    ("losses", "flagged"),
    [
        pytest.param(SLOW, True, id="hardly-fell"),
        pytest.param(FALLING, False, id="fell-to-a-tenth-all-the-same"),
        pytest.param([2.3, 1.2] + [0.9] * 100, False, id="had-stopped-falling-before"),
        pytest.param([], True, id="unknown"),
    ],
)
def test_a_loss_that_came_down_is_no_case(losses, flagged) -> None:
    assert bool(severities(trace(geometric(0.7, 60), losses))) is flagged


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(geometric(0.7, 60), schedulers=("ReduceLROnPlateau",)), id="plateau"),
        pytest.param(two_players([0.1] * 60, linear(60)), id="two-players"),
        pytest.param(two_players([0.1] * 60, [1e-4] * 60), id="two-players-at-two-rates"),
        pytest.param(trace(geometric(0.7, 60), watched=False), id="check"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_guards(observed) -> None:
    assert severities(observed) == []


def cycles(times: int, period: int = 20) -> list[float]:
    return [0.05 * (1 + math.cos(2 * math.pi * i / period)) for i in range(times * period)]


@pytest.mark.parametrize(
    ("rates", "scheduler", "flagged"),
    [
        pytest.param(cycles(4), "CosineAnnealingLR", True, id="a-cosine-of-ten-batches"),
        pytest.param([*cycles(3), 0.1], "CosineAnnealingLR", True, id="exactly-three-returns"),
        pytest.param([*cycles(2), 0.1], "CosineAnnealingLR", False, id="two-returns"),
        pytest.param(
            [0.1, 0.0, *[0.045, 0.055] * 20],
            "CosineAnnealingLR",
            False,
            id="turns-about-the-middle",
        ),
        pytest.param(cycles(4), "CyclicLR", False, id="cycles-by-design"),
        pytest.param(cosine(25) * 4, "CosineAnnealingWarmRestarts", False, id="warm-restarts"),
        pytest.param(cosine(100), "CosineAnnealingLR", False, id="one-fall"),
        pytest.param(
            [r for r in cycles(4) for _ in range(5)], "CosineAnnealingLR", False, id="by-the-epoch"
        ),
        pytest.param(
            [1 + r for r in cycles(4)], "CosineAnnealingLR", False, id="down-to-a-high-floor"
        ),
    ],
)
def test_a_cosine_that_comes_back_again_and_again_is_flagged(rates, scheduler, flagged) -> None:
    assert bool(severities(trace(rates, schedulers=(scheduler,)))) is flagged


def test_the_message_of_a_cycling_rate_names_its_period() -> None:
    seen = trace(cycles(4), schedulers=("CosineAnnealingLR",))
    (found,) = findings_of(LearningRateSchedule(), seen)

    assert found.message == (
        "the learning rate falls from 0.1 to 0 and comes back 4 times in 80 steps, about every 20 "
        "(CosineAnnealingLR)"
    )


def test_steps_that_were_not_observed_change_nothing() -> None:
    assert severities(trace(geometric(0.9, 200), every=3)) == [Severity.WARNING]
    assert severities(trace(cosine(200), every=3)) == []


def test_a_rate_that_is_not_told_has_not_changed() -> None:
    for rates, flagged in ((stairs(0.1, 7, 120), True), (stairs(0.1, 30, 100), False)):
        full = trace(rates)
        told = [
            o
            for o in full.observations
            if o.metric != "learning_rate" or o.step == 1 or rates[o.step - 1] != rates[o.step - 2]
        ]
        assert bool(severities(full.but(observations=told))) is flagged


def test_exactly_a_hundredth_in_the_first_half_is_silent() -> None:
    factor = 0.01 ** (1 / 50)

    assert severities(trace(geometric(factor, 100))) == []
    assert severities(trace(geometric(factor, 104))) == [Severity.WARNING]


def test_the_rates_of_several_optimizers_are_judged_one_by_one() -> None:
    (found,) = findings_of(
        LearningRateSchedule(), two_players([0.1] * 60, geometric(0.7, 60, peak=1.0))
    )

    assert found.module == "netG"
    assert found.message == (
        "the learning rate of netG is multiplied by 0.7 at every step: from 1 to 7.3e-10, below 1% "
        "of its peak from step 14 of 60 on; the loss went from 1 to 1"
    )


def test_a_rate_below_zero_is_an_error() -> None:
    (found,) = findings_of(LearningRateSchedule(), trace([0.1 - 0.01 * i for i in range(40)]))

    assert found.severity is Severity.ERROR
    assert found.exact
    assert found.message == (
        "the learning rate is below zero from step 12 of 40 on (-0.01): the optimizer climbs"
    )


@given(
    st.integers(20, 400), st.floats(1e-6, 10), st.floats(0, 0.3), st.sampled_from([linear, cosine])
)
def test_decay_over_the_whole_run_is_never_flagged(steps, peak, warm, shape) -> None:
    rising = [peak * (i + 1) / (warm * steps) for i in range(int(warm * steps))]
    rates = rising + shape(steps - len(rising), peak=peak)

    assert severities(trace(rates, FLAT)) == []


def test_it_says_why_it_is_skipped() -> None:
    assert (
        LearningRateSchedule().skip_reason(trace([], watched=False))
        == "no training loop was watched"
    )
    assert LearningRateSchedule().skip_reason(trace([0.1])) is None


def test_the_message_names_factor_rates_and_steps() -> None:
    (found,) = findings_of(LearningRateSchedule(), trace(geometric(0.7, 60)))

    assert found.message == (
        "the learning rate is multiplied by 0.7 at every step: from 0.1 to 7.3e-11, below 1% of "
        "its peak from step 14 of 60 on (StepLR); the loss went from 2.3 to 2.1"
    )


@pytest.mark.parametrize(
    ("rates", "flagged"),
    [
        pytest.param([0.0] * 20 + [1e-5] * 20, True, id="half-of-the-run"),
        pytest.param([0.0] * 10 + [0.1] * 190, True, id="ten-of-two-hundred"),
        pytest.param([0.0] * 9 + [0.1] * 51, False, id="nine"),
        pytest.param([0.0] * 10 + [0.1] * 191, False, id="less-than-a-twentieth"),
        pytest.param([0.0] + [1e-3 * i for i in range(1, 60)], False, id="warm-up-from-zero"),
        pytest.param([0.0] * 60, False, id="never-anything-else"),
    ],
)
def test_a_rate_that_is_zero_for_a_while_at_first_is_flagged(rates, flagged) -> None:
    assert bool(severities(trace(rates))) is flagged


def test_the_message_of_a_late_start_counts_its_steps() -> None:
    (found,) = findings_of(LearningRateSchedule(), trace([0.0] * 20 + [1e-5] * 20))

    assert found.message == (
        "the learning rate is zero for the first 20 of 40 steps, and 1e-05 at its highest (StepLR)"
    )


def test_a_loss_that_stops_where_the_rate_is_zero_excuses_nothing() -> None:
    losses = [2.3 * 0.9**i for i in range(10)] + [0.9] * 90

    assert severities(trace(linear(100, end=10), losses)) == [Severity.WARNING]
    assert severities(trace(linear(100, end=10), [2.3, *[0.2] * 99])) == []
