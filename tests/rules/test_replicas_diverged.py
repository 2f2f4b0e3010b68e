"""GL901 replicas-diverged."""

from __future__ import annotations

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.replicas_diverged import ReplicasDiverged
from gradlint.testing import findings_of, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, ParameterFacts, RankFacts, Trace


def distributed(ranks: RankFacts | None) -> Trace:
    return trace_of(
        modules=[ModuleFacts("fc", "Linear", 1)],
        parameters=[
            ParameterFacts("fc.weight", module="fc"),
            ParameterFacts("fc.bias", module="fc"),
        ],
        command="run",
        loop=LoopFacts(steps=20, ranks=ranks),
    )


def test_names_parameters_that_differ_and_since_when() -> None:
    ranks = RankFacts(4, (0, 1, 2, 3), diverged=("fc.weight",), diverged_step=7)

    (found,) = findings_of(ReplicasDiverged(), distributed(ranks))

    assert found.message == "fc.weight is not the same on all 4 ranks, first seen at step 7"
    assert (found.module, found.parameter, found.step) == ("fc", "fc.weight", 7)
    assert found.severity.label == "error"
    assert found.exact


def test_several_parameters_are_one_finding() -> None:
    ranks = RankFacts(2, (0, 1), diverged=("fc.weight", "fc.bias"))

    (found,) = findings_of(ReplicasDiverged(), distributed(ranks))

    assert found.message == "fc.weight is not the same on all 2 ranks (and 1 more place)"


def test_equal_replicas_are_silent() -> None:
    assert findings_of(ReplicasDiverged(), distributed(RankFacts(8, tuple(range(8))))) == ()


@pytest.mark.parametrize(
    "ranks", [pytest.param(None, id="no-ranks"), pytest.param(RankFacts(1, (0,)), id="one-rank")]
)
def test_is_skipped_where_there_is_nothing_to_compare(ranks: RankFacts | None) -> None:
    judged = judge(distributed(ranks), [ReplicasDiverged()])

    assert judged.skipped == {"GL901": "not a distributed run"}
