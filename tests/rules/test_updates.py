"""Which weights count when updates are judged, and how far they moved."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.graph import Operation
from gradlint.rules._updates import (
    below_rounding,
    expected_update,
    matrices,
    median_updates,
    warming_up,
)
from gradlint.testing import observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, OptimizerFacts, ParameterFacts, Trace

FRESH = {"lr": 0.0, "initial_lr": 0.1}


def weight(
    *,
    kind: str = "Linear",
    start: float = 0.1,
    updates: tuple[float, ...] = (),
    operations: tuple[Operation, ...] = (),
    **changes: object,
) -> Trace:
    facts = {"shape": (8, 16), "fan_in": 16, "module": "0", **changes}
    return trace_of(
        observe("weight_rms", "0.weight", [start], step=0),
        observe("update_to_weight_ratio", "0.weight", updates),
        operations=operations,
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


def scaled(*after: Operation, start: float = 0.0125 / 10) -> Trace:
    layer = Operation(0, "linear", "AddmmBackward0", module="0", parameters=("0.weight",))
    rest = tuple(replace(op, id=n) for n, op in enumerate(after, start=1))
    return weight(start=start, operations=(layer, *rest))


def times(factor: float | None, *, name: str = "MulBackward0", reads: int = 0) -> Operation:
    told = {} if factor is None else {"scalar": factor}
    return Operation(0, "scale", name, inputs=(reads,), attributes=told)


VIEW = Operation(0, "view", "ViewBackward0", inputs=(0,))
SINE = Operation(0, "sin", "SinBackward0", inputs=(0,))


@pytest.mark.parametrize(
    ("trace", "counts"),
    [
        pytest.param(scaled(times(30.0)), True, id="thirty-times"),
        pytest.param(scaled(times(-30.0)), True, id="minus-thirty-times"),
        pytest.param(scaled(VIEW, times(30.0, reads=1)), True, id="in-another-shape"),
        pytest.param(scaled(times(1 / 30, name="DivBackward0")), True, id="divided"),
        pytest.param(scaled(times(30.0, name="DivBackward0")), False, id="divided-by-thirty"),
        pytest.param(scaled(times(10.0)), False, id="ten-times"),
        pytest.param(scaled(times(None)), False, id="by-data"),
        pytest.param(scaled(times(0.0, name="DivBackward0")), False, id="divided-by-zero"),
        pytest.param(scaled(times(30.0), SINE), False, id="beside-as-it-is"),
        pytest.param(scaled(SINE), False, id="not-multiplied"),
        pytest.param(scaled(times(0.01), start=0.1), True, id="made-smaller"),
        pytest.param(
            weight(
                start=0.00125,
                operations=(
                    Operation(0, "index", "IndexBackward0", parameters=("0.weight",)),
                    replace(times(30.0), id=1),
                ),
            ),
            False,
            id="no-layer",
        ),
    ],
)
def test_matrices_before_a_constant_count_by_their_product_with_it(
    trace: Trace, counts: bool
) -> None:
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


def pushed(
    kind: str = "SGD",
    *,
    norm: float | None = 2.0,
    gradient: float = 1.0,
    rate: float | None = 0.1,
    **changes: object,
) -> tuple[Trace, ParameterFacts]:
    """A weight of 16 entries under a gradient, and the trace it stands in."""
    trace = trace_of(
        observe("weight_norm", "w", [] if norm is None else [norm] * 3),
        observe("gradient_norm", "w", [gradient] * 3),
        optimizer=OptimizerFacts(kind, ({} if rate is None else {"lr": rate},)),
    )
    return trace, ParameterFacts("w", (4, 4), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(pushed(), 0.05, id="rate-times-gradient-over-weight"),
        pytest.param(pushed("Adam"), 0.2, id="the-rate-at-every-entry"),
        pytest.param(pushed("Adam", gradient=1e-7), None, id="near-the-eps-of-adam"),
        pytest.param(pushed(rate=None), None, id="rate-unknown"),
        pytest.param(pushed(rate=0.0), None, id="rate-zero"),
        pytest.param(pushed(norm=0.0), None, id="a-weight-of-zero"),
        pytest.param(pushed(norm=None), None, id="weight-unknown"),
    ],
)
def test_an_update_is_expected_of_rate_and_gradient(
    observed: tuple[Trace, ParameterFacts], expected: float | None
) -> None:
    found = expected_update(*observed)

    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(pushed(), False, id="large"),
        pytest.param(pushed(gradient=1e-6), True, id="lost-in-float32"),
        pytest.param(pushed(gradient=1e-6, dtype="float64"), False, id="kept-in-float64"),
        pytest.param(pushed(gradient=0.5, dtype="bfloat16"), True, id="lost-in-bfloat16"),
        pytest.param(pushed(rate=None), True, id="unknown"),
        pytest.param(pushed(norm=0.0), False, id="zero-has-no-rounding"),
    ],
)
def test_rounding_undoes_updates_below_the_precision_of_the_weights(
    observed: tuple[Trace, ParameterFacts], expected: bool
) -> None:
    assert below_rounding(*observed) is expected
