"""GL910: worse than the baseline by more than the baseline's own spread."""

from __future__ import annotations

import math

import pytest

from gradlint.finding import Finding
from gradlint.health import MEASURES
from gradlint.health_samples import with_baseline
from gradlint.metrics import all_metrics
from gradlint.rules.regression import Regression
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Flow, ModuleFacts, ParameterFacts, Site, Trace

STEPS = 40


def noisy(level: float, noise: float = 0.0) -> list[float]:
    return [level + noise * (-1) ** i for i in range(STEPS)]


def run(*observations, **facts) -> Trace:
    start = observe("loss", "", [2.0], kind="model", step=0)
    return trace_of(start, *observations, **facts)


def with_loss(level: float, noise: float = 0.0) -> Trace:
    return run(observe("loss", "", noisy(level, noise), kind="model"))


def with_dead(*shares: float) -> Trace:
    places = enumerate(shares)
    modules = [ModuleFacts(f"act{i}", "ReLU", depth=i) for i in range(len(shares))]
    seen = (observe("dead_fraction", f"act{i}", [s], depth=i, step=40) for i, s in places)
    return run(*seen, modules=modules)


def judged(new: Trace, *bases: Trace) -> tuple[Finding, ...]:
    return findings_of(Regression(), with_baseline(new, bases))


def test_without_a_baseline_it_is_skipped() -> None:
    assert Regression().skip_reason(with_loss(1.0)) == "no baseline run given"


def test_a_run_is_no_worse_than_itself() -> None:
    assert judged(with_loss(1.0, 0.1), with_loss(1.0, 0.1)) == ()


def test_a_loss_far_above_the_baselines_is_told_with_both_numbers() -> None:
    (found,) = judged(with_loss(1.5), with_loss(0.5))

    assert found.message == "loss at the end: 1.5, 0.5 in the baseline run (limit 0.65)"
    assert found.module == ""
    assert found.evidence["runs"] == 1


def test_a_better_loss_is_no_finding() -> None:
    assert judged(with_loss(0.1), with_loss(0.5)) == ()


@pytest.mark.parametrize(("noise", "count"), [(0.02, 1), (0.2, 0)])
def test_from_step_to_step_the_spread_of_one_baseline_is_the_yardstick(noise, count) -> None:
    assert len(judged(with_loss(0.8), with_loss(0.5, noise))) == count


@pytest.mark.parametrize(("others", "count"), [((0.50, 0.51), 1), ((0.3, 0.7), 0)])
def test_of_several_baselines_the_spread_from_run_to_run_is(others, count) -> None:
    bases = [with_loss(0.5), *(with_loss(level) for level in others)]

    assert len(judged(with_loss(0.6), *bases)) == count


def test_runs_are_compared_over_the_steps_they_share() -> None:
    falling = [2.0 - 0.04 * i for i in range(STEPS)]
    base = run(observe("loss", "", falling, kind="model"))
    new = run(observe("loss", "", falling[:20], kind="model"))

    assert judged(new, base) == ()


@pytest.mark.parametrize(("share", "count"), [(0.1, 0), (0.2, 0), (0.21, 1), (1.0, 1)])
def test_dead_units_count_beyond_a_tenth_more_than_the_documented_tenth(share, count) -> None:
    assert len(judged(with_dead(share), with_dead(0.0))) == count


def test_the_places_of_a_metric_are_one_finding_and_the_worst_speaks() -> None:
    (found,) = judged(with_dead(0.5, 0.0, 0.9), with_dead(0.0, 0.0, 0.0))

    assert found.module == "act2"
    assert found.modules == ("act0", "act2")
    assert found.message == (
        "units that never fire at act2: 0.9, 0 in the baseline run (limit 0.2) (and 1 more place)"
    )


def test_within_the_documented_band_nothing_is_worse() -> None:
    def with_std(level: float) -> Trace:
        return run(observe("activation_std", "fc1", noisy(level)))

    assert judged(with_std(1.9), with_std(0.6)) == ()
    assert len(judged(with_std(4.1), with_std(1.0))) == 1
    assert len(judged(with_std(0.2), with_std(1.0))) == 1
    assert judged(with_std(1.0), with_std(0.2)) == ()


def test_ratios_are_compared_at_the_start_and_for_matrices_alone() -> None:
    def with_ratio(early: float, late: float, *shape: int) -> Trace:
        values = [early] * 10 + [late] * (STEPS - 10)
        return trace_of(
            observe("gradient_ratio", "fc1.weight", values, kind="parameter", module="fc1"),
            parameters=[ParameterFacts("fc1.weight", shape, module="fc1")],
        )

    (found,) = judged(with_ratio(1e-6, 1e-2, 3, 2), with_ratio(1e-2, 1e-2, 3, 2))

    assert (found.module, found.parameter) == ("fc1", "fc1.weight")
    assert judged(with_ratio(1e-2, 1e-6, 3, 2), with_ratio(1e-2, 1e-2, 3, 2)) == ()
    assert judged(with_ratio(1e-6, 1e-6, 3), with_ratio(1e-2, 1e-2, 3)) == ()


def test_decades_the_gradient_loses_count_whichever_way() -> None:
    def with_flow(decades: float) -> Trace:
        site = Site("fc1", "Linear", 0, "fc1")
        return run(flows=(Flow(0, site, {"Sigmoid": decades, "structural": -9.0}),))

    assert len(judged(with_flow(-5.0), with_flow(-1.0))) == 1
    assert len(judged(with_flow(5.0), with_flow(-1.0))) == 1
    assert judged(with_flow(-1.5), with_flow(-1.0)) == ()


def test_a_loss_that_is_no_number_is_worse_and_one_that_was_none_already_is_not() -> None:
    broken = with_loss(math.nan)

    (found,) = judged(broken, with_loss(0.5))

    assert "nan" in found.message
    assert judged(broken, broken) == ()
    assert judged(with_loss(0.5), broken) == ()


def test_the_limit_told_is_where_it_begins_to_be_worse() -> None:
    (low,) = judged(with_dead(0.35), with_dead(0.05))
    (limit,) = {low.evidence["limit"]}

    assert judged(with_dead(limit - 1e-9), with_dead(0.05)) == ()
    assert len(judged(with_dead(limit + 1e-9), with_dead(0.05))) == 1


def test_a_place_the_baseline_does_not_have_is_no_finding() -> None:
    assert judged(with_dead(0.0, 0.9), with_dead(0.0)) == ()


def test_its_metrics_exist() -> None:
    assert set(MEASURES) - {"gradient_decades"} <= set(all_metrics())
