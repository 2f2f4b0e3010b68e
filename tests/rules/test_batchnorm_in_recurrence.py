from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.batchnorm_in_recurrence import BatchnormInRecurrence
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Trace


def trace(steps: int, *, chained: bool = True, training: bool = True, apart: bool = False) -> Trace:
    operations = []
    for step in range(steps):
        before = (3 * step - 1,) if step and chained else ()
        norm = Operation(
            3 * step + 1, "batch_norm", "", f"norm{step}" if apart else "norm", (3 * step,),
            attributes={"training": training},
        )  # fmt: skip
        operations += [
            Operation(3 * step, "rnn", "", "cell", before),
            norm,
            Operation(3 * step + 2, "view", "", "", (3 * step + 1,)),
        ]
    return trace_of(operations=operations)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(10), True, id="ten-steps"),
        pytest.param(trace(3), True, id="exactly-at-the-limit"),
        pytest.param(trace(2), False, id="a-refinement"),
        pytest.param(trace(10, chained=False), False, id="views-side-by-side"),
        pytest.param(trace(10, apart=True), False, id="one-for-each-step"),
        pytest.param(trace(10, training=False), False, id="running-statistics"),
        pytest.param(trace_of(), False, id="nothing"),
    ],
)
def test_a_batchnorm_of_all_time_steps_is_flagged(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(BatchnormInRecurrence(), observed)) is flagged


def test_the_message_counts_the_steps() -> None:
    (found,) = findings_of(BatchnormInRecurrence(), trace(4))

    assert found.severity is Severity.WARNING
    assert found.module == "norm"
    assert found.message == (
        "BatchNorm is applied 4 times in a row in one forward: one running mean and variance for "
        "all 4"
    )


def test_a_model_without_batchnorm_is_skipped() -> None:
    assert BatchnormInRecurrence().skip_reason(trace_of()) == "no BatchNorm in the graph"
