from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules.single_class_output import SingleClassOutput
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Event, Facts, LossFacts, TensorFacts, Trace

LINEAR = Operation(0, "linear", "linear", "0", shape=(8, 1))
SOFTMAX = Operation(1, "softmax", "softmax", "1", (0,), shape=(8, 1), attributes={"dim": 1})
MSE = Operation(2, "mse", "mse", None, (1,), in_loss=True)


def test_a_softmax_over_one_output_is_an_error() -> None:
    (found,) = findings_of(SingleClassOutput(), trace_of(operations=(LINEAR, SOFTMAX, MSE)))

    assert found.message == (
        "softmax over 1 value gives the same whatever the value: the loss is constant and its "
        "gradient zero"
    )
    assert found.module == "1"


@pytest.mark.parametrize(
    "softmax",
    [
        replace(SOFTMAX, shape=(8, 2)),
        replace(SOFTMAX, attributes={"dim": 0}),
        replace(SOFTMAX, attributes={}),
        replace(SOFTMAX, attributes={"dim": 2}),
    ],
    ids=["two-outputs", "another-axis", "axis-unknown", "axis-of-another-shape"],
)
def test_other_softmaxes_are_silent(softmax: Operation) -> None:
    assert findings_of(SingleClassOutput(), trace_of(operations=(LINEAR, softmax, MSE))) == ()


def test_attention_over_one_key_is_silent() -> None:
    weights = Operation(2, "linear", "linear", "2", (1,), shape=(8, 1))
    loss = replace(MSE, id=3, inputs=(2,))

    trace = trace_of(operations=(LINEAR, SOFTMAX, weights, loss))

    assert findings_of(SingleClassOutput(), trace) == ()


def test_a_batch_of_one_is_silent() -> None:
    trace = trace_of(operations=(LINEAR, SOFTMAX, MSE), batch_size=1)

    assert findings_of(SingleClassOutput(), trace) == ()


def labels(unique: int, low: int, high: int, *, classes: int = 5, **changes: object) -> Trace:
    target = TensorFacts(
        "target", (64,), "int64", minimum=low, maximum=high, whole=True, unique=unique
    )
    output = TensorFacts("output", (64, classes), "float32")
    loss = LossFacts("cross_entropy", output=output, target=target, classes=classes)
    return trace_of(losses=(replace(loss, **changes),))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(labels(8, 0, 7), True, id="more-labels-than-outputs"),
        pytest.param(labels(5, 0, 4), False, id="as-many"),
        pytest.param(labels(5, 1, 5), False, id="numbered-from-one-is-another-rule"),
        pytest.param(labels(6, -100, 4), False, id="one-of-them-ignored"),
        pytest.param(labels(6, 0, 255, ignore_index=255), False, id="ignored-at-the-top"),
        pytest.param(labels(7, 0, 255, ignore_index=255), True, id="ignored-and-too-many"),
    ],
)
def test_more_labels_than_outputs_are_an_error(trace, flagged) -> None:
    assert bool(findings_of(SingleClassOutput(), trace)) is flagged


def test_cross_entropy_over_one_class_is_an_error() -> None:
    (found,) = findings_of(SingleClassOutput(), labels(1, 0, 0, classes=1))

    assert found.message.startswith("cross_entropy over 1 class")


def test_rows_of_probabilities_are_no_labels() -> None:
    target = TensorFacts("target", (64, 5), "float32", unique=300)
    loss = LossFacts(
        "cross_entropy", output=TensorFacts("o", (64, 5), "float32"), target=target, classes=5
    )

    assert findings_of(SingleClassOutput(), trace_of(losses=(loss,))) == ()


def test_the_message_counts_both() -> None:
    (found,) = findings_of(SingleClassOutput(), labels(8, 0, 7))

    assert found.message == "the targets hold 8 different classes, the model has 5 outputs"


def test_a_loss_that_raised_is_judged_by_output_and_targets() -> None:
    raised = Event("exception", detail={"phase": "loss", "message": "Target 7 is out of bounds"})
    loss = labels(8, 0, 7).facts.losses[0]
    trace = trace_of(events=(raised,), outputs=(loss.output,), targets=(loss.target,))

    assert len(findings_of(SingleClassOutput(), trace)) == 1


def test_a_loss_over_no_classes_is_silent() -> None:
    assert findings_of(SingleClassOutput(), labels(8, 0, 7, kind="huber")) == ()
    assert findings_of(SingleClassOutput(), labels(8, 0, 7).but(facts=unknown_classes())) == ()


def unknown_classes() -> Facts:
    return Facts(losses=(replace(labels(8, 0, 7).facts.losses[0], classes=None),))


def test_a_softmax_over_one_output_is_not_said_again_of_its_loss() -> None:
    log = replace(SOFTMAX, kind="log_softmax", in_loss=True)
    loss = replace(MSE, kind="nll")
    trace = labels(1, 0, 0, classes=1).but(graph=Graph((LINEAR, log, loss)))

    assert len(list(SingleClassOutput().check(trace))) == 1


def test_a_loss_that_picks_the_probability_is_one() -> None:
    picked = Operation(2, "index", "index", None, (1,), in_loss=True)

    assert findings_of(SingleClassOutput(), trace_of(operations=(LINEAR, SOFTMAX, picked)))
