from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.unscaled_attention import UnscaledAttention
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Trace


def chained(*between: Operation) -> tuple[Operation, ...]:
    """Queries and keys, what stands between them and the softmax, the softmax."""
    last = Operation(
        9, "softmax", "", "block.attention", (between[-1].id if between else 1,),
        site="block.attention",
    )  # fmt: skip
    first = Operation(0, "linear", "", "qk", parameters=("qk.weight",))
    return (first, Operation(1, "matmul", "", "", (0, 0)), *between, last)


PLAIN = chained()
SCALED = chained(Operation(2, "scale", "", "", (1,), attributes={"scalar": 0.125}))
ENLARGED = chained(Operation(2, "scale", "", "", (1,), attributes={"scalar": 8.0}))
PRE_NORM = (
    Operation(0, "layer_norm", "", "norm"),
    Operation(1, "linear", "", "qk", (0,), ("qk.weight",)),
    Operation(2, "matmul", "", "", (1, 1)),
    Operation(3, "softmax", "", "block.attention", (2,), site="block.attention"),
)
ANOTHER = (
    tuple(
        replace(o, id=o.id - 20, inputs=tuple(i - 20 for i in o.inputs), site="another")
        for o in SCALED
    )
    + PLAIN
)
LEARNED = chained(Operation(2, "parameter_mul", "", "", (1,)))


def trace(
    *peaks: float,
    step: int = 0,
    pretrained: bool = False,
    operations: tuple[Operation, ...] = PLAIN,
    others: tuple[float, ...] = (),
) -> Trace:
    seen = observe("attention_peak", "block.attention", peaks, kind="softmax", step=step)
    more = [observe("attention_peak", f"{i}", [v], step=0) for i, v in enumerate(others)]
    return trace_of(seen, *more, operations=operations, pretrained=pretrained)


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(UnscaledAttention(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(0.99), Severity.WARNING, id="unscaled"),
        pytest.param(trace(0.99, operations=ENLARGED), Severity.WARNING, id="multiplied"),
        pytest.param(trace(0.99, operations=SCALED), Severity.NOTE, id="a-single-scaled-one"),
        pytest.param(trace(0.99, operations=PRE_NORM), Severity.WARNING, id="normalized-before"),
        pytest.param(trace(0.99, operations=ANOTHER), Severity.WARNING, id="another-is-scaled"),
        pytest.param(trace(0.99, operations=LEARNED), Severity.NOTE, id="a-learned-temperature"),
        pytest.param(trace(0.99, operations=()), Severity.NOTE, id="a-single-fused-one"),
        pytest.param(
            trace(0.99, operations=SCALED, others=(0.99, 0.2)), Severity.WARNING, id="two-of-three"
        ),
        pytest.param(trace(0.99, others=(0.2, 0.2)), Severity.NOTE, id="one-of-three"),
        pytest.param(
            trace(0.99, others=(0.61, 0.2)), Severity.WARNING, id="the-middle-one-is-sharp-too"
        ),
        pytest.param(trace(0.99, others=(0.6, 0.2)), Severity.NOTE, id="the-middle-one-is-not"),
        pytest.param(
            trace(0.99, operations=SCALED, others=(0.7, 0.7)), Severity.NOTE, id="all-are-scaled"
        ),
    ],
)
def test_most_attentions_have_to_be_sharp(observed: Trace, expected: Severity) -> None:
    assert severities(observed) == [expected]


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(0.99, 0.98, 0.99), True, id="one-hot"),
        pytest.param(trace(0.8, 0.8), False, id="exactly-at-the-limit"),
        pytest.param(trace(0.2, 0.99, 0.2), False, id="one-batch-of-three"),
        pytest.param(trace(0.99, step=3), False, id="learned"),
        pytest.param(trace(0.99, pretrained=True), False, id="loaded"),
        pytest.param(trace(math.nan, math.nan), False, id="too-few-keys"),
        pytest.param(trace(), False, id="no-attention"),
    ],
)
def test_attention_is_judged_before_it_has_learned(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(UnscaledAttention(), observed)) is flagged


def test_the_message_says_how_sharp_it_is() -> None:
    (found,) = findings_of(UnscaledAttention(), trace(0.97, 0.98, 0.99))

    assert found.severity is Severity.WARNING
    assert found.module == "block.attention"
    assert found.message == (
        "the median query gives 98% of its attention to one key at step 0 (limit 80%), and "
        "nothing scales its scores"
    )
