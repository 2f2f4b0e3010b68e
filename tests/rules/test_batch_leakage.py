from __future__ import annotations

from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.batch_leakage import BatchLeakage
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import TensorFacts, Trace

SERIES = TensorFacts("input", (32, 10, 8), "float32")
FEATURES = TensorFacts("input", (32, 8), "float32")
LABELS = TensorFacts("target", (32,), "int64")
OUTPUT = TensorFacts("output", (32, 3), "float32")


def trace(
    leak: float = 0.3,
    order: float = 0.4,
    *extra: Operation,
    kinds: str = "linear relu",
    **facts: Any,
) -> Trace:
    settings: dict[str, Any] = {
        "inputs": (SERIES,), "targets": (LABELS,), "outputs": (OUTPUT,),
        "probes": {"batch-leakage": {"leak": leak, "order": order, "rows": 32, "module": "head"}},
    }  # fmt: skip
    return trace_of(operations=(*chain(*kinds.split()), *extra), **(settings | facts))


def shaped(**changes: Any) -> tuple[TensorFacts, ...]:
    return (TensorFacts("x", **{"shape": (32, 10), "dtype": "float32", **changes}),)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(), True, id="series"),
        pytest.param(trace(1e-4), False, id="exactly-at-the-limit"),
        pytest.param(trace(0.3, 1e-6), False, id="compared-whatever-the-order"),
        pytest.param(trace(inputs=shaped(dtype="int64")), True, id="tokens"),
        pytest.param(trace(inputs=shaped(shape=(32, 32, 8))), False, id="two-axes-of-that-length"),
        pytest.param(trace(targets=shaped(shape=(32, 10))), False, id="time-first"),
        pytest.param(trace(targets=shaped(shape=(32, 1))), True, id="one-number-each"),
        pytest.param(trace(outputs=shaped(shape=(32, 32))), False, id="scores-of-all-pairs"),
        pytest.param(trace(outputs=shaped(shape=(30, 3))), False, id="other-rows"),
        pytest.param(trace(targets=()), False, id="no-targets"),
        pytest.param(trace(synthesized=True), False, id="made-up"),
        pytest.param(trace(inputs=(FEATURES,)), False, id="features-or-one-sequence"),
        pytest.param(
            trace(inputs=(FEATURES,), kinds="linear transpose view"), True, id="features-reshaped"
        ),
        pytest.param(
            trace(inputs=(FEATURES,), kinds="linear view rnn"), False, id="one-long-sequence"
        ),
        pytest.param(
            trace(0.3, 0.4, Operation(2, "index", "IndexAddBackward0", shape=(32, 4))),
            False,
            id="nodes-of-a-graph",
        ),
        pytest.param(
            trace(0.3, 0.4, Operation(2, "matmul", "MmBackward0", shape=(32, 4))),
            False,
            id="adjacency",
        ),
        pytest.param(trace_of(), False, id="nothing"),
    ],
)
def test_leaks_count_where_rows_are_proven_to_be_samples(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(BatchLeakage(), observed)) is flagged


def test_the_message_says_where_and_how_much() -> None:
    (found,) = findings_of(BatchLeakage(), trace())

    assert found.severity is Severity.ERROR
    assert found.message == (
        "replacing one sample changes the outputs of the others by 0.3 of their size, first in "
        "head: samples of the batch are mixed"
    )
