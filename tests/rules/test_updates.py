"""Which weights count when updates are judged, and how far they moved."""

from __future__ import annotations

import math

import pytest

from gradlint.rules._updates import matrices, median_updates, warming_up
from gradlint.testing import observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, OptimizerFacts, ParameterFacts, Trace

FRESH = {"lr": 0.0, "initial_lr": 0.1}


def weight(
    *, kind: str = "Linear", start: float = 0.1, updates: tuple[float, ...] = (), **changes: object
) -> Trace:
    facts = {"shape": (8, 16), "fan_in": 16, "module": "0", **changes}
    return trace_of(
        observe("weight_rms", "0.weight", [start], step=0),
        observe("update_to_weight_ratio", "0.weight", updates),
        modules=[ModuleFacts("0", kind)],
        parameters=[ParameterFacts("0.weight", **facts)],  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("trace", "counts"),
    [
        pytest.param(weight(), True, id="a-matrix"),
        pytest.param(weight(requires_grad=False), False, id="frozen"),
        pytest.param(weight(shape=(8,)), False, id="a-bias"),
        pytest.param(weight(shape=(1, 1)), False, id="one-number"),
        pytest.param(weight(kind="Embedding"), False, id="rows-of-a-table"),
        pytest.param(weight(start=0.0125), False, id="starts-at-nearly-zero"),
        pytest.param(weight(start=0.0126), True, id="starts-just-above"),
    ],
)
def test_matrices_that_started_at_a_size_of_their_own_count(trace: Trace, counts: bool) -> None:
    assert [p.path for p in matrices(trace)] == (["0.weight"] if counts else [])


def test_the_median_leaves_out_the_first_steps_and_what_was_not_measured() -> None:
    trace = weight(updates=(9.0, 0.1, math.nan, 0.3, 0.2))

    assert median_updates(trace, since=2, min_steps=3) == {"0.weight": 0.2}
    assert median_updates(trace, since=2, min_steps=4) == {}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param([0.1, 0.2], True, id="rises"),
        pytest.param([0.1, 0.15], False, id="exactly-by-half"),
        pytest.param([0.1, 0.4, 0.2], False, id="has-risen"),
        pytest.param([0.1], False, id="one-step"),
        pytest.param([], False, id="unknown"),
    ],
)
def test_a_rate_that_still_rises_warms_up(rates: list[float], expected: bool) -> None:
    assert warming_up(trace_of(observe("learning_rate", "", rates))) is expected


@pytest.mark.parametrize(
    ("groups", "more", "expected"),
    [
        pytest.param((FRESH,), {}, True, id="where-a-schedule-starts-it"),
        pytest.param((FRESH, {"lr": 0.1}), {}, False, id="one-group-without-schedule"),
        pytest.param(({"lr": 0.05, "initial_lr": 0.1},), {}, False, id="at-half"),
        pytest.param((), {}, False, id="no-groups"),
        pytest.param((FRESH,), {"loop": LoopFacts()}, False, id="a-loop-steps-it"),
    ],
)
def test_a_fresh_optimizer_may_stand_at_the_first_rate_of_its_schedule(
    groups: tuple[dict[str, float], ...], more: dict[str, LoopFacts], expected: bool
) -> None:
    assert warming_up(trace_of(optimizer=OptimizerFacts("SGD", groups), **more)) is expected
    resumed = OptimizerFacts("SGD", groups, has_state=True)
    assert warming_up(trace_of(optimizer=resumed, **more)) is False
