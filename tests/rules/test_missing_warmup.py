from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.missing_warmup import MissingWarmup
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, OptimizerFacts, ParameterFacts, Trace

THROWN = [2.0, 2.5, 3.0, 2.4] + [2.0 * 0.97**i for i in range(40)]
CONSTANT = [0.01] * 44
LARGE = [0.5] * 5 + [0.01] * 39


def trace(
    losses: list[float] = THROWN,
    updates: list[float] = LARGE,
    *,
    rates: list[float] = CONSTANT,
    kind: str = "Adam",
    attention: str = "MultiheadAttention",
    operations: tuple[str, ...] = (),
    streams: int = 1,
    watched: bool = True,
) -> Trace:
    return trace_of(
        observe("loss", "", losses[:1], kind="model", step=0),
        observe("loss", "", losses, kind="model"),
        observe("learning_rate", "", rates, kind="model"),
        observe("update_to_weight_ratio", "0.weight", updates, module="0"),
        observe("weight_rms", "0.weight", [0.1], step=0, module="0"),
        operations=chain(*operations),
        modules=[ModuleFacts("0", attention, 0, 1)],
        parameters=[ParameterFacts("0.weight", (64, 64), module="0", fan_in=64)],
        optimizer=OptimizerFacts(kind),
        loop=LoopFacts(steps=len(losses), streams=streams) if watched else None,
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(MissingWarmup(), observed)]


@pytest.mark.parametrize(
    ("losses", "updates", "flagged"),
    [
        pytest.param(THROWN, LARGE, True, id="thrown"),
        pytest.param(THROWN, [0.1] * 44, False, id="exactly-the-update"),
        pytest.param([2.0, 2.4, *[1.9] * 40], LARGE, False, id="exactly-the-rise"),
        pytest.param([2.0] * 21 + [3.0] + [2.0] * 20, LARGE, False, id="thrown-later"),
        pytest.param(THROWN[:3], LARGE, False, id="too-few-steps"),
        pytest.param([], [], False, id="not-observed"),
    ],
)
def test_first_steps_are_judged(losses, updates, flagged) -> None:
    assert severities(trace(losses, updates)) == ([Severity.NOTE] if flagged else [])


def test_attention_is_seen_in_operations_too() -> None:
    functional = ("linear", "matmul", "softmax", "matmul", "linear")

    assert severities(trace(attention="Net", operations=functional)) == [Severity.NOTE]


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace([2.0 * 0.97**i for i in range(44)]), id="falls-from-the-start"),
        pytest.param(trace(THROWN, [1e-3] * 44), id="noise-under-small-updates"),
        pytest.param(trace([2.0, 4.0, 1.0, 5.0] * 11), id="a-noisy-loss"),
        pytest.param(trace(rates=[0.001 * i for i in range(1, 45)]), id="warm-up"),
        pytest.param(trace(rates=[0.001] * 5 + [0.01] * 39), id="warm-up-of-a-few-steps"),
        pytest.param(trace(kind="SGD"), id="sgd"),
        pytest.param(trace(attention="Conv2d"), id="no-attention"),
        pytest.param(
            trace(attention="Net", operations=("linear", "softmax", "linear")), id="a-gate"
        ),
        pytest.param(trace(streams=2), id="two-players"),
        pytest.param(trace([-2.0, *THROWN[1:]]), id="a-loss-below-zero"),
        pytest.param(trace(rates=[]), id="rates-unknown"),
        pytest.param(trace(watched=False), id="check"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_loops_are_silent(observed) -> None:
    assert severities(observed) == []


@given(st.lists(st.floats(0.1, 2.4), min_size=4, max_size=60))
def test_a_loss_that_does_not_rise_is_never_flagged(losses) -> None:
    assert severities(trace([2.0, *losses])) == []


def test_it_says_why_it_is_skipped() -> None:
    assert MissingWarmup().skip_reason(trace(watched=False)) == "no training loop was watched"
    assert MissingWarmup().skip_reason(trace()) is None


def test_the_message_names_loss_rate_and_update() -> None:
    (found,) = findings_of(MissingWarmup(), trace())

    assert found.step == 3
    assert found.message == (
        "the loss rises from 2 to 3 by step 3, at a learning rate that is 0.01 from the first "
        "step on; a step changes the median matrix by 50% of its size (limit 10%)"
    )


def first_seen_late(metric: str) -> Trace:
    """A run of which the first steps' `metric` is not known."""
    observed = trace()
    kept = (o for o in observed if o.metric != metric or o.step == 0 or o.step > 20)
    return observed.but(observations=tuple(kept))


@pytest.mark.parametrize("metric", ["loss", "update_to_weight_ratio"])
def test_first_steps_that_were_not_looked_at_are_not_judged(metric: str) -> None:
    assert severities(first_seen_late(metric)) == []


def test_a_softmax_of_the_loss_is_no_attention() -> None:
    observed = trace(attention="Net")
    operations = (
        *chain("linear", "matmul"),
        Operation(2, "softmax", "", None, (1,), in_loss=True),
    )

    assert severities(observed.but(graph=Graph(operations))) == []
