from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.recurrent_init import RecurrentInit
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ParameterFacts, Trace


def trace(
    gain: float,
    steps: int = 20,
    kind: str = "tanh",
    *,
    again: bool = True,
    pretrained: bool = False,
) -> Trace:
    """Each step weighs the state and puts it through an activation."""
    operations: list[Operation] = []
    for step in range(steps):
        before = (2 * step - 1,) if step and again else ()
        operations += [
            Operation(2 * step, "linear", "", "turn", before, ("turn.weight",)),
            Operation(2 * step + 1, kind, "", "", (2 * step,), site=f"turn:{kind}"),
        ]
    return trace_of(
        observe("init_gain", "turn.weight", [gain], module="turn", step=0),
        operations=operations,
        parameters=[ParameterFacts("turn.weight", (8, 8))],
        pretrained=pretrained,
    )


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(8.0), Severity.WARNING, id="saturates"),
        pytest.param(trace(4.0), None, id="exactly-at-the-limit"),
        pytest.param(trace(1.0), None, id="orthogonal"),
        pytest.param(trace(0.577), None, id="torch"),
        pytest.param(trace(0.3), None, id="exactly-not-forgetting"),
        pytest.param(trace(0.2), Severity.NOTE, id="forgets"),
        pytest.param(trace(2.5, 40, "relu"), Severity.WARNING, id="grows"),
        pytest.param(trace(1.42, 40, "relu"), None, id="he"),
        pytest.param(trace(2.5, 11, "relu"), None, id="grows-for-few-steps"),
        pytest.param(trace(8.0, 9), None, id="too-few-steps"),
        pytest.param(trace(8.0, again=False), None, id="side-by-side"),
        pytest.param(trace(8.0, pretrained=True), None, id="loaded"),
        pytest.param(trace(0.0), None, id="zeros-have-no-gain"),
        pytest.param(trace(8.0, kind="clone"), None, id="no-activation"),
        pytest.param(trace_of(), None, id="nothing"),
    ],
)
def test_the_gain_counts_to_the_power_of_the_steps(
    observed: Trace, expected: Severity | None
) -> None:
    found = [f.severity for f in findings_of(RecurrentInit(), observed)]

    assert found == ([] if expected is None else [expected])


def test_the_message_says_what_is_left() -> None:
    (found,) = findings_of(RecurrentInit(), trace(0.1, 20))

    assert found.message == (
        "recurrent weight turn.weight has a gain of 0.1: over 20 steps of an input 1.0e-20 is "
        "left (limit 0.3)"
    )


def flooded(
    ratio: float | None, last: float | None, *, gain: float = 3.0, head: str = "head.weight",
    kind: str = "tanh",
) -> Trace:  # fmt: skip
    """A recurrence whose gradient is `ratio` of its weight, that of its head `last`."""
    base = trace(gain, kind=kind)
    size = len(base.graph)
    behind = Operation(size, "linear", "", "head", (size - 1,), (head,))
    extra = trace_of(
        *([] if ratio is None else [observe("gradient_ratio", "turn.weight", [ratio], step=0)]),
        *([] if last is None else [observe("gradient_ratio", "head.weight", [last], step=0)]),
        operations=[*base.graph, behind],
    )
    parameters = {**base.parameters, head: ParameterFacts(head, (8, 8))}
    return extra.but(observations=(*base, *extra), parameters=parameters)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(flooded(110.0, 1.0), True, id="explodes"),
        pytest.param(flooded(100.0, 1.0), False, id="exactly-at-the-limit"),
        pytest.param(flooded(110.0, 1.0, gain=1.0), False, id="not-by-its-gain"),
        pytest.param(flooded(110.0, 1.0, kind="relu", gain=1.4), False, id="rectified"),
        pytest.param(flooded(110.0, 2.0), False, id="so-does-the-last-layer's"),
        pytest.param(flooded(110.0, 0.0), False, id="no-gradient-at-the-last-layer"),
        pytest.param(flooded(None, 1.0), False, id="not-measured"),
        pytest.param(flooded(110.0, None), False, id="the-last-layer-not-measured"),
        pytest.param(flooded(110.0, 1.0, head="turn.weight"), False, id="no-other-layer"),
        pytest.param(flooded(float("inf"), 1.0), True, id="overflows"),
    ],
)
def test_a_chaotic_state_is_known_by_its_gradient(observed: Trace, flagged: bool) -> None:
    found = [f.severity for f in findings_of(RecurrentInit(), observed)]

    assert found == ([Severity.WARNING] if flagged else [])


def test_rectifiers_do_not_saturate() -> None:
    rule = RecurrentInit(max_growth=1e30)

    assert findings_of(rule, trace(8.0, 10))
    assert findings_of(rule, trace(8.0, 10, "relu")) == ()
