from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, sqrt

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.weight_growth import WeightGrowth
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ParameterFacts, Trace


def trace(
    *growth: Callable[[int], float],
    losses: Sequence[float] = (2.0,) * 20,
    steps: Sequence[int] = range(21),
    operations: Sequence[Operation] = (),
    start: float = 0.1,
) -> Trace:
    """Matrices "0", "1" …, whose norm at a step is that of `growth`."""
    paths = [f"{i}.weight" for i in range(len(growth))]
    return trace_of(
        *[observe("weight_norm", path, [grows(s)], module=path[0], step=s)
          for path, grows in zip(paths, growth, strict=True) for s in steps],
        *[observe("weight_rms", path, [start], module=path[0], step=0) for path in paths],
        observe("loss", "", losses[:1], step=0),
        observe("loss", "", losses),
        parameters=[ParameterFacts(p, (32, 64), module=p[0], fan_in=64) for p in paths],
        operations=operations,
        loop=LoopFacts(steps=20, backwards=20),
    )  # fmt: skip


def places(observed: Trace) -> list[tuple[str, ...]]:
    return [f.modules for f in findings_of(WeightGrowth(), observed)]


def doubling(step: int) -> float:
    return 2.0 ** (step / 4)


def still(step: int) -> float:
    return 1.0


FALLING = [2.0 * 0.9**i for i in range(20)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(doubling, doubling), [("0", "1")], id="doubling-every-fourth-step"),
        pytest.param(
            trace(lambda s: 2 ** (s / 1000), steps=[0, 1, 2, 5, 10, 100, 2000, 3000, 5000]),
            [("0",)],
            id="slow-and-steady",
        ),
        pytest.param(trace(doubling, losses=[2.0**i for i in range(20)]), [("0",)], id="diverging"),
        pytest.param(trace(doubling, losses=FALLING), [], id="the-loss-falls"),
        pytest.param(trace(doubling, losses=[]), [], id="no-loss-to-judge-by"),
        pytest.param(trace(doubling, still, still), [], id="one-of-three"),
        pytest.param(trace(lambda s: 0.01 + sqrt(s)), [], id="root-of-the-steps"),
        pytest.param(trace(lambda s: 0.01 + s), [], id="linear"),
        pytest.param(trace(lambda s: 0.1 + log(1 + s)), [], id="logarithm"),
        pytest.param(trace(lambda s: 30.0 - 29.0 * 0.3**s), [], id="settled-soon"),
        pytest.param(trace(still), [], id="still"),
        pytest.param(trace(lambda s: 1.1**s), [], id="less-than-four-doublings"),
        pytest.param(trace(doubling, start=1e-4), [], id="from-next-to-nothing"),
        pytest.param(
            trace(doubling, operations=chain("linear", "batch_norm", "relu", "mse")),
            [],
            id="in-front-of-a-normalization",
        ),
        pytest.param(trace(doubling, steps=range(0, 28, 4)), [], id="too-few-observations"),
    ],
)
def test_weights_are_not_to_double_without_end(observed, expected) -> None:
    assert places(observed) == expected


def test_the_message_counts_doublings() -> None:
    (found,) = findings_of(WeightGrowth(), trace(doubling))

    assert found.severity is Severity.WARNING
    assert found.message == (
        "the norm of 0.weight doubled 5 times in 20 steps, 2.5 of them in the second half; the "
        "loss went from 2 to 2"
    )


def test_nothing_is_said_without_a_loop() -> None:
    assert findings_of(WeightGrowth(), trace_of(observe("weight_norm", "a", [1, 2, 4]))) == ()


def test_the_matrix_that_stays_is_not_named() -> None:
    assert places(trace(doubling, doubling, still)) == [("0", "1")]
