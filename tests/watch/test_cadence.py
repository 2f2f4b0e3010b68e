"""Which steps are looked at, and that the budget is kept."""

from __future__ import annotations

import pytest

from gradlint.watching.cadence import FIRST_LIGHT, PATIENCE, Cadence, Look


def looks(cadence: Cadence, steps: int, cost: dict[Look, float], step_time: float) -> list[Look]:
    found = []
    for step in range(1, steps + 1):
        look = cadence.next(step)
        found.append(look)
        own = cost[look]
        cadence.spent(look, own, step_time + own, first=step <= FIRST_LIGHT)
    return found


CHEAP = {Look.OFF: 1e-6, Look.LIGHT: 1e-4, Look.FULL: 1e-3}
DEAR = {Look.OFF: 1e-5, Look.LIGHT: 1e-2, Look.FULL: 1e-1}


@pytest.mark.parametrize("budget", [0.01, 0.02, 0.1])
@pytest.mark.parametrize("cost", [CHEAP, DEAR], ids=["cheap", "dear"])
@pytest.mark.parametrize("step_time", [3e-3, 1e-1])
def test_the_budget_is_kept_after_the_first_steps(
    budget: float, cost: dict[Look, float], step_time: float
) -> None:
    found = looks(Cadence(budget=budget), 20_000, cost, step_time)[FIRST_LIGHT:]

    own = sum(cost[look] for look in found)
    sure = 26 * cost[Look.LIGHT]  # those made whatever the budget says: 1.25^26 > 20 000 / 40
    assert own <= budget * step_time * len(found) + sure + PATIENCE + cost[Look.FULL]


def looks_with_rests(
    cadence: Cadence, steps: int, cost: dict[Look, float], step_time: float
) -> list[Look]:
    """As `looks`, but steps that surely rest are counted together, as `Loop` does."""
    found: list[Look] = []
    while len(found) < steps:
        step = len(found) + 1
        look = cadence.next(step)
        alike = cadence.resting(step) if look is Look.OFF and step > FIRST_LIGHT else 1
        found += [look] * alike
        own = cost[look]
        cadence.spent(
            look, own * alike, (step_time + own) * alike, steps=alike, first=step <= FIRST_LIGHT
        )
    return found[:steps]


@pytest.mark.parametrize("every", ["auto", 7, 100])
@pytest.mark.parametrize("cost", [CHEAP, DEAR], ids=["cheap", "dear"])
@pytest.mark.parametrize("step_time", [3e-3, 1e-1])
def test_resting_together_looks_at_as_many_steps(
    every: object, cost: dict[Look, float], step_time: float
) -> None:
    alone = looks(Cadence(every), 5000, cost, step_time)  # type: ignore[arg-type]
    together = looks_with_rests(Cadence(every), 5000, cost, step_time)  # type: ignore[arg-type]

    if every != "auto":
        assert together == alone
    for look in (Look.LIGHT, Look.FULL):
        assert together.count(look) == pytest.approx(alone.count(look), rel=0.05, abs=2)


def test_what_the_budget_has_is_used() -> None:
    found = looks(Cadence(budget=0.02), 5000, CHEAP, 1e-1)

    assert found.count(Look.OFF) < 100
    assert found.count(Look.FULL) >= 15


@pytest.mark.parametrize("steps", [100, 333, 1000, 5000])
def test_one_step_of_the_later_half_is_looked_at_in_full_on_a_busy_machine(steps: int) -> None:
    busy = {Look.OFF: 1e-4, Look.LIGHT: 1e-2, Look.FULL: 5e-2}

    found = looks_with_rests(Cadence(budget=0.02), steps, busy, 1e-3)

    assert Look.FULL in found[steps // 2 :]
    assert found.count(Look.FULL) * busy[Look.FULL] < PATIENCE


def test_the_first_steps_are_looked_at_and_the_very_first_in_full() -> None:
    found = looks(Cadence(), FIRST_LIGHT, CHEAP, 1e-3)

    assert found[:3] == [Look.FULL] * 3
    assert Look.OFF not in found


def test_looking_for_long_ends_even_at_the_start_and_some_steps_are_sure() -> None:
    slow = {Look.OFF: 0.0, Look.LIGHT: 1.0, Look.FULL: 2 * PATIENCE}

    found = looks(Cadence(), 4000, slow, 1e-3)

    assert found.count(Look.FULL) == 1
    late = found[2000:]
    assert 2 <= late.count(Look.LIGHT) <= 6


@pytest.mark.parametrize("every", [1, 7, 50])
def test_a_fixed_cadence_is_the_same_on_every_machine(every: int) -> None:
    quick, slow = Cadence(every), Cadence(every)

    one = looks(quick, 500, CHEAP, 1e-4)
    two = looks(slow, 500, DEAR, 1.0)

    assert one == two
    seen = {step for step, look in enumerate(one, start=1) if look is not Look.OFF}
    assert seen == {1, 2, 3} | set(range(every, 501, every))
