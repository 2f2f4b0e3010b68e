from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.rules.constant_targets import ConstantTargets
from gradlint.testing import findings_of, trace_of
from gradlint.trace import LoopFacts, LossFacts, TensorFacts, Trace

SORTED = {"batches": 3, "constant": 3, "values": 3, "fewest": 32, "all": 96}
LABELS = TensorFacts("target", (32,), "int64")


def trace(kind: str = "cross_entropy", target: TensorFacts = LABELS, **changes: Any) -> Trace:
    made_up = changes.pop("synthesized", False)
    return trace_of(
        losses=(LossFacts(kind),),
        targets=(target,),
        probes={"targets": {**SORTED, **changes}},
        synthesized=made_up,
    )


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(), [Severity.WARNING], id="sorted"),
        pytest.param(trace("nll"), [Severity.WARNING], id="sorted-nll"),
        pytest.param(trace(constant=2), [], id="one-batch-varies"),
        pytest.param(trace(batches=5, constant=3), [Severity.WARNING], id="most-of-many-batches"),
        pytest.param(trace(batches=5, constant=2), [], id="few-of-many-batches"),
        pytest.param(trace(batches=9, constant=8, values=1), [], id="rare-class-in-one-batch"),
        pytest.param(trace(fewest=8), [Severity.WARNING], id="exactly-enough-samples"),
        pytest.param(trace(fewest=7), [], id="small-batches"),
        pytest.param(trace(batches=1, constant=1, values=1), [], id="one-batch"),
        pytest.param(trace(batches=1, constant=1, values=1, all=256), [], id="one-large-batch"),
        pytest.param(trace(values=1, all=128), [Severity.NOTE], id="one-class"),
        pytest.param(trace(values=1, all=127), [], id="a-rare-class-may-be-missing"),
        pytest.param(
            trace(values=1, all=1000, ignored=True), [Severity.WARNING], id="one-class-is-left"
        ),
        pytest.param(
            trace(values=1, all=999, ignored=True), [Severity.NOTE], id="few-labels-are-left"
        ),
        pytest.param(trace(values=1, all=1000), [Severity.NOTE], id="one-class-of-many-labels"),
        pytest.param(trace("bce_with_logits"), [], id="binary"),
        pytest.param(trace(target=TensorFacts("t", (32, 3), "float32")), [], id="probabilities"),
        pytest.param(trace(synthesized=True), [], id="made-up"),
        pytest.param(trace_of(losses=(LossFacts("nll"),)), [], id="not-looked-at"),
    ],
)
def test_labels_that_do_not_vary(observed: Trace, expected: list[Severity]) -> None:
    assert [found.severity for found in findings_of(ConstantTargets(), observed)] == expected


def test_losses_of_two_networks_may_have_batches_of_their_own() -> None:
    loop = LoopFacts(steps=40, backwards=60, streams=2)
    observed = trace()

    judged = observed.but(facts=replace(observed.facts, loop=loop))

    assert findings_of(ConstantTargets(), judged) == ()


def test_the_message_says_that_the_data_are_sorted() -> None:
    (found,) = findings_of(ConstantTargets(), trace())

    assert found.message == (
        "each of 3 batches holds one class only, 3 different ones: the data are sorted by class"
    )


def test_the_message_says_that_others_are_ignored() -> None:
    (found,) = findings_of(ConstantTargets(), trace(values=1, all=1000, ignored=True))

    assert found.message == ("all 1000 labels that are not ignored of 3 batches are the same class")
    assert "mask" in found.help
