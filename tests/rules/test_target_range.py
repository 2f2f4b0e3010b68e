from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.loop_facts import LoopFacts
from gradlint.rules.target_range import TargetRange
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Event, LossFacts, TensorFacts, Trace

LOOP = LoopFacts(steps=9)


def targets(
    low: float, high: float, shape: tuple[int, ...] = (64,), dtype: str = "int64", **more: object
) -> TensorFacts:
    return TensorFacts("target", shape, dtype, low, high, **more)  # type: ignore[arg-type]


def classes(target: TensorFacts, kind: str = "cross_entropy", **changes: object) -> Trace:
    output = TensorFacts("output", (64, 5), "float32")
    loss = LossFacts(kind, output=output, target=target, classes=5, **changes)  # type: ignore[arg-type]
    return trace_of(losses=(loss,))


def severities(trace: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(TargetRange(), trace)]


@pytest.mark.parametrize(
    ("target", "ignored", "flagged"),
    [
        pytest.param(targets(0, 4, unique=5), None, False, id="all-in-range"),
        pytest.param(targets(1, 5, unique=5), None, True, id="numbered-from-one"),
        pytest.param(targets(-1, 4, unique=5), None, True, id="below-zero"),
        pytest.param(targets(-1, 4, unique=5), -1, False, id="below-zero-and-ignored"),
        pytest.param(targets(-100, 4, unique=5), None, False, id="the-default-is-ignored"),
        pytest.param(targets(0, 255, unique=5), 255, False, id="ignored-at-the-top"),
        pytest.param(targets(0, 8, unique=9), None, False, id="too-few-outputs-is-another-rule"),
    ],
)
def test_labels_are_to_be_in_range(target, ignored, flagged) -> None:
    trace = classes(target, ignore_index=ignored)

    assert severities(trace) == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("kind", "target", "flagged"),
    [
        pytest.param("cross_entropy", targets(0, 1, (64, 5)), True, id="one-hot-integers"),
        pytest.param("nll", targets(0, 1, (64, 5), "float32", mean=0.2), True, id="one-hot-to-nll"),
        pytest.param("cross_entropy", targets(0, 4, (64, 1)), True, id="a-column"),
        pytest.param("cross_entropy", targets(0, 4, (64,), "float32"), True, id="float-labels"),
        pytest.param(
            "cross_entropy", targets(0, 1, (64, 5), "float32", mean=0.2), False, id="probabilities"
        ),
    ],
)
def test_class_targets_are_indices_or_probabilities(kind, target, flagged) -> None:
    assert severities(classes(target, kind)) == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("kind", "output", "target", "dtype", "flagged"),
    [
        pytest.param("cross_entropy", (64, 5), (48,), "int64", True, id="fewer-labels"),
        pytest.param("cross_entropy", (4, 5, 8, 8), (4, 6, 6), "int64", True, id="smaller-mask"),
        pytest.param("cross_entropy", (64, 5), (64, 4), "float32", True, id="narrower-rows"),
        pytest.param("cross_entropy", (4, 5, 8, 8), (4, 8, 8), "int64", False, id="mask-fits"),
        pytest.param("mse", (64, 5), (64, 4), "float32", True, id="other-columns"),
        pytest.param("l1", (64, 5), (48, 5), "float32", True, id="other-rows"),
        pytest.param("mse", (64, 5), (5,), "float32", False, id="one-row-for-all"),
        pytest.param("huber", (64, 1), (64, 1), "float32", False, id="alike"),
    ],
)
def test_shapes_that_made_a_loss_raise_are_named(kind, output, target, dtype, flagged) -> None:
    given = TensorFacts("output", output, "float32")
    wanted = TensorFacts("target", target, dtype, 0.0, 0.0)
    loss = LossFacts(kind, output=given, target=wanted, classes=5)

    found = findings_of(TargetRange(), trace_of(losses=(loss,)))

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])
    assert all(str(target) in f.message and str(output) in f.message for f in found)


def test_what_torch_accepted_is_of_the_right_shape() -> None:
    trace = classes(targets(0, 4, (320,), unique=5), operation=3)

    assert severities(trace) == []


@pytest.mark.parametrize(
    ("target", "flagged"),
    [
        pytest.param(targets(0, 1, (64, 5), "float32", mean=0.21), False, id="at-the-limit"),
        pytest.param(targets(0, 1, (64, 5), "float32", mean=0.4), True, id="several-labels"),
        pytest.param(targets(-0.5, 1, (64, 5), "float32", mean=0.2), True, id="negative"),
        pytest.param(targets(0, 1, (64, 5), "float32", mean=0.1), False, id="padded-rows"),
    ],
)
def test_rows_that_do_not_sum_to_one_are_a_warning(target, flagged) -> None:
    assert severities(classes(target)) == ([Severity.WARNING] if flagged else [])


@pytest.mark.parametrize(
    ("low", "high", "reduction", "expected"),
    [
        (0.0, 1.0, "mean", []),
        (-1.0, 1.0, "mean", [Severity.ERROR]),
        (0.0, 1.2, "mean", [Severity.WARNING]),
        (-1.0, 1.0, "none", []),
    ],
)
def test_binary_targets_are_between_zero_and_one(low, high, reduction, expected) -> None:
    output = TensorFacts("output", (64, 1), "float32")
    target = targets(low, high, (64, 1), "float32")
    loss = LossFacts("bce_with_logits", reduction, output, target)

    assert severities(trace_of(losses=(loss,))) == expected


@pytest.mark.parametrize(
    ("output", "target", "flagged"),
    [
        ((64, 1), (64,), True),
        ((64,), (64, 1), True),
        ((64, 1), (64, 1), False),
        ((64, 5), (64, 1), False),
        ((64, 5), (1,), False),
        ((1, 1), (1,), False),
    ],
)
def test_a_difference_larger_than_both_sides_is_an_error(output, target, flagged) -> None:
    loss = LossFacts(
        "mse",
        output=TensorFacts("output", output, "float32"),
        target=TensorFacts("target", target, "float32"),
    )

    assert severities(trace_of(losses=(loss,))) == ([Severity.ERROR] if flagged else [])


def by_hand(result: tuple[int, ...], *, reshaped: bool = False) -> Trace:
    linear = Operation(0, "linear", "linear", "0", shape=(64, 1))
    operations = [linear]
    if reshaped:
        operations.append(Operation(1, "squeeze", "s", None, (0,), shape=(64,), in_loss=True))
    last = operations[-1]
    operations.append(
        Operation(last.id + 1, "shift", "sub", None, (last.id,), shape=result, in_loss=True)
    )
    target = TensorFacts("target", (64,), "float32")
    loss = LossFacts(
        "mse", output=TensorFacts("o", (64, 1), "float32"), target=target, operation=last.id + 1
    )
    return trace_of(operations=operations, losses=(loss,), targets=(target,))


def test_a_difference_by_hand_is_told_by_the_graph() -> None:
    assert severities(by_hand((64, 64))) == [Severity.ERROR]
    assert severities(by_hand((64,), reshaped=True)) == []


def test_what_the_loss_raised_is_named() -> None:
    event = Event("exception", detail={"phase": "loss", "message": "Target 7 is out of bounds."})

    (found,) = findings_of(TargetRange(), trace_of(events=(event,)))

    assert found.message == "the loss raised on its targets: Target 7 is out of bounds"


def test_made_up_targets_say_nothing() -> None:
    loss = classes(targets(1, 5, unique=5)).facts.losses

    assert findings_of(TargetRange(), trace_of(losses=loss, synthesized=True)) == ()
    assert findings_of(TargetRange(), trace_of()) == ()


def test_the_message_names_the_labels_and_the_range() -> None:
    (found,) = findings_of(TargetRange(), classes(targets(1, 5, unique=5)))

    assert found.message == "class labels run from 1 to 5, 5 outputs allow 0…4"


def expanded(before: tuple[int, ...], after: tuple[int, ...], loss: str = "mse") -> Trace:
    return trace_of(
        operations=(
            Operation(0, "linear", "AddmmBackward0", module="head", shape=before),
            Operation(1, "expand", "ExpandBackward0", inputs=(0,), shape=after),
            Operation(2, loss, "LossBackward0", inputs=(1,), shape=(), in_loss=True),
        ),
        targets=(TensorFacts("target", after, "float32"),),
    )


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(expanded((32, 1), (32, 32)), True, id="a-column-and-a-row"),
        pytest.param(expanded((32,), (32, 32), "smooth_l1"), True, id="a-row-and-a-column"),
        pytest.param(expanded((32, 1), (32, 4)), False, id="one-output-for-four-targets"),
        pytest.param(expanded((1, 4), (32, 4)), False, id="one-output-for-all-samples"),
        pytest.param(expanded((32, 1), (32, 32), "matmul"), False, id="in-front-of-no-loss"),
    ],
)
def test_a_prediction_that_a_loss_made_square_is_found(trace, flagged) -> None:
    """A watched loop has the targets as the loss keeps them: expanded, too."""
    assert severities(trace) == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    "loss",
    [
        LossFacts("cross_entropy", output=TensorFacts("o", (64, 5), "float32"), classes=5),
        LossFacts("mse", target=targets(0, 1)),
        LossFacts(
            "cross_entropy",
            output=TensorFacts("o", (64, 5), "float32"),
            target=targets(0, 0, (0,)),
            classes=5,
        ),
    ],
    ids=["targets-unknown", "output-unknown", "no-targets-in-this-batch"],
)
def test_a_side_that_is_not_known_is_silent(loss: LossFacts) -> None:
    assert severities(trace_of(losses=(loss,))) == []


def test_binary_targets_of_another_shape_are_an_error() -> None:
    output = TensorFacts("output", (64, 1), "float32")
    loss = LossFacts("bce", output=output, target=targets(0, 1, (64,), "float32"))

    assert severities(trace_of(losses=(loss,))) == [Severity.ERROR]
    assert severities(trace_of(losses=(replace(loss, operation=1),))) == []


def table(*operations: Operation) -> list[Severity]:
    """What is said of operations in front of a loss whose targets are 64 numbers."""
    return severities(
        trace_of(operations=operations, targets=(TensorFacts("target", (64,), "float32"),))
    )


def test_tables_that_are_meant_are_silent() -> None:
    column = Operation(0, "linear", "", "0", shape=(64, 1))
    other = Operation(1, "linear", "", "1", shape=(64,))
    row = Operation(0, "linear", "", "0", shape=(64,))
    put_in = Operation(1, "squeeze", "", None, (0,), shape=(64, 1), in_loss=True)

    def difference(number: int, *inputs: int, kind: str = "shift", loss: bool = True) -> Operation:
        return Operation(number, kind, "", None, inputs, shape=(64, 64), in_loss=loss)

    assert table(column, difference(1, 0)) == [Severity.ERROR]
    assert table(column, difference(1, 0, kind="mask")) == []  # similarities
    assert table(column, difference(1, 0, loss=False)) == []  # inside the model
    assert table(column, other, difference(2, 0, 1)) == []  # of two predictions
    assert table(row, put_in, difference(2, 1)) == []  # the loss ranks all pairs


def test_an_expanded_constant_is_no_prediction() -> None:
    constant = Operation(0, "expand", "ExpandBackward0", missing=1, shape=(32, 32))
    loss = Operation(1, "mse", "MseLossBackward0", inputs=(0,), in_loss=True)

    assert table(constant, loss) == []


def test_more_labels_than_outputs_that_raised_are_another_rule_s() -> None:
    event = Event("exception", detail={"phase": "loss", "message": "Target 7 is out of bounds."})
    trace = trace_of(
        events=(event,),
        outputs=(TensorFacts("output", (64, 5), "float32"),),
        targets=(targets(0, 8, unique=9),),
    )

    assert severities(trace) == []


@pytest.mark.parametrize(
    ("target", "shape", "flagged"),
    [
        pytest.param((0, 9, (64, 1), 10), (64, 10), True, id="class-numbers"),
        pytest.param((0, 9, (64, 1), 7), (64, 10), True, id="of-which-some-are-missing"),
        pytest.param((0, 8, (64, 1), 9), (64, 10), False, id="not-up-to-the-last"),
        pytest.param((1, 9, (64, 1), 9), (64, 10), False, id="not-from-zero"),
        pytest.param((0, 9, (64, 1), 30), (64, 10), False, id="not-whole"),
        pytest.param((0, 9, (64, 1), 2), (64, 10), False, id="two-values"),
        pytest.param((0, 1, (64, 1), 2), (64, 2), False, id="two-heads"),
        pytest.param((0, 9, (64, 10), 10), (64, 10), False, id="a-target-for-each"),
    ],
)
def test_class_numbers_repeated_for_every_score_are_no_regression(target, shape, flagged) -> None:
    low, high, of, unique = target
    whole = unique <= high + 1
    seen = targets(low, high, of, "float32", unique=unique, whole=whole)
    output = TensorFacts("output", shape, "float32", -1.0, 1.0)
    loss = LossFacts("mse", output=output, target=seen, operation=3)

    assert severities(trace_of(losses=(loss,))) == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("ignored", "count", "high", "flagged"),
    [
        pytest.param(0, 2, 1, True, id="the-first-of-two"),
        pytest.param(1, 2, 1, True, id="the-last-of-two"),
        pytest.param(-100, 2, 1, False, id="none"),
        pytest.param(0, 3, 2, False, id="background-of-three"),
        pytest.param(0, 2, 0, False, id="padding-alone"),
    ],
)
def test_an_ignored_class_of_two_leaves_one(ignored, count, high, flagged) -> None:
    output = TensorFacts("output", (64, count), "float32")
    seen = targets(0, high, unique=high + 1)
    loss = LossFacts(
        "cross_entropy", output=output, target=seen, classes=count, ignore_index=ignored
    )

    assert severities(trace_of(losses=(loss,))) == ([Severity.ERROR] if flagged else [])


def paired(column: float, *, kind: str = "shift", in_loss: bool = False) -> tuple[object, ...]:
    """What is said of a table of 64 x 64 differences whose targets nothing kept."""
    output = (64, 1) if column else (64,)
    operations = (
        Operation(0, "linear", "", "head", shape=output, in_loss=in_loss),
        Operation(1, kind, "", None, (0,), shape=(64, 64), in_loss=True),
        Operation(2, "mean", "", None, (1,), shape=(), in_loss=True),
    )
    seen = {"pairs": {"count": 64.0, "column": column}}
    trace = trace_of(operations=operations, probes={"written-losses": seen}, loop=LOOP)
    return findings_of(TargetRange(), trace)


def test_an_error_by_hand_of_all_pairs_is_told_without_its_targets() -> None:
    (found,) = paired(1.0)

    assert found.severity is Severity.ERROR
    assert found.module == "head"
    assert found.message == (
        "output (64, 1) and targets (64,) broadcast to (64, 64): every output is compared with "
        "every target"
    )
    (row,) = paired(0.0, in_loss=True)
    assert row.module is None
    assert "output (64,) and targets (64, 1)" in row.message


def test_a_table_of_which_nothing_is_known_is_no_error() -> None:
    operations = (
        Operation(0, "linear", "", "0", shape=(64, 1)),
        Operation(1, "shift", "", None, (0,), shape=(64, 64), in_loss=True),
    )

    assert severities(trace_of(operations=operations, loop=LOOP)) == []


def a_row(
    output: tuple[int, ...] = (10, 10),
    shape: tuple[int, ...] = (10,),
    values: tuple[float, float, int] = (0.0, 9.0, 8),
    kind: str = "mse",
    *,
    whole: bool = True,
    given: bool = True,
    **facts: object,
) -> list[Severity]:
    """What is said of a square of outputs against one row of targets."""
    low, high, unique = values
    target = TensorFacts("target", shape, "float32", low, high, unique=unique, whole=whole)
    loss = LossFacts(
        kind, output=TensorFacts("output", output, "float32"), target=target, operation=1
    )
    seen: dict[str, object] = {"losses": (loss,), "batch_size": 10, **facts}
    return severities(trace_of(targets=(target,) if given else (), **seen))


def test_a_target_for_each_sample_is_no_row_for_all() -> None:
    loop = LoopFacts(steps=9)

    assert a_row() == [Severity.ERROR]
    assert a_row(whole=False) == [Severity.ERROR]
    assert a_row(output=(12, 10)) == []
    assert a_row(output=(10, 12)) == []
    assert a_row(shape=(10, 10)) == []
    assert a_row(output=(1, 1), shape=(1,), batch_size=1) == []
    assert a_row(kind="cross_entropy") == []
    assert a_row(batch_size=20, whole=False) == []  # a template
    assert a_row(given=False, whole=False) == []
    assert a_row(loop=loop) == [Severity.ERROR]
    assert a_row(loop=loop, whole=False) == []
    assert a_row(loop=loop, values=(0.0, 9.0, 10)) == []  # each number once
    assert a_row(loop=loop, values=(0.0, 1.0, 2)) == []
    assert a_row(loop=loop, values=(0.0, 10.0, 8)) == []
    assert a_row(loop=loop, values=(-1.0, 9.0, 8)) == []


@pytest.mark.parametrize("kind", ["mse", "soft_margin"])
def test_a_loss_whose_targets_are_not_known_is_silent(kind: str) -> None:
    loss = LossFacts(kind, output=TensorFacts("output", (10, 10), "float32"), operation=0)
    op = Operation(0, kind, "SoftMarginLossBackward0", None, in_loss=True)

    assert severities(trace_of(losses=(loss,), operations=(op,), batch_size=10)) == []


@pytest.mark.parametrize(
    ("name", "low", "high", "whole", "flagged"),
    [
        ("SoftMarginLossBackward0", 0.0, 1.0, True, True),
        ("SoftMarginLossBackward0", -1.0, 1.0, True, False),
        ("SoftMarginLossBackward0", 0.0, 1.0, False, False),
        ("SoftMarginLossBackward0", 0.0, 0.0, True, False),
        ("MultilabelMarginLossBackward0", 0.0, 1.0, True, False),
    ],
)
def test_a_soft_margin_wants_signs(name, low, high, whole, flagged) -> None:
    target = targets(low, high, (64, 5), "float32", whole=whole)
    output = TensorFacts("output", (64, 5), "float32")
    loss = LossFacts("soft_margin", output=output, target=target, operation=1)
    operations = (
        Operation(0, "linear", "", "0", shape=(64, 5)),
        Operation(1, "soft_margin", name, None, (0,), in_loss=True),
    )

    found = severities(trace_of(losses=(loss,), operations=operations))

    assert found == ([Severity.ERROR] if flagged else [])


def test_a_ranking_of_zero_and_one_teaches_half_of_its_pairs() -> None:
    seen = {"ranking": {"minimum": 0.0, "maximum": 1.0, "zeros": 0.4}}

    hinge = Operation(0, "relu", "", None, in_loss=True)
    trace = trace_of(operations=(hinge,), probes={"written-losses": seen}, loop=LOOP)
    (found,) = findings_of(TargetRange(), trace)

    assert found.message == (
        "the targets are 0 and 1, margin_ranking_loss wants -1 and 1: of a target of 0 the loss "
        "is a constant"
    )


def weighed(
    *after: tuple[str, tuple[int, ...]],
    loss: tuple[int, ...] = (64,),
    weights: tuple[int, ...] | None = (64, 1),
    table: tuple[int, ...] = (64, 64),
    name: str = "NllLossBackward0",
    in_loss: bool = True,
) -> list[Severity]:
    """What is said of losses times weights, and of what is made of their product."""
    attributes = {} if weights is None else {"factor_shape": weights}
    steps = [
        Operation(0, "linear", "", "0", shape=(64, 3)),
        Operation(1, "nll", name, None, (0,), shape=loss, in_loss=True),
        Operation(2, "mask", "", None, (1,), shape=table, in_loss=in_loss, attributes=attributes),
    ]
    for number, (kind, shape) in enumerate(after or (("mean", ()),), 3):
        steps.append(Operation(number, kind, "", None, (number - 1,), shape=shape, in_loss=True))
    return severities(trace_of(operations=tuple(steps), loop=LOOP))


def test_losses_times_a_column_of_weights_are_a_table() -> None:
    assert weighed() == [Severity.ERROR]
    assert weighed(loss=(64, 1), weights=(64,)) == [Severity.ERROR]
    assert weighed(("neg", (64, 64)), ("sum", ()), ("scale", ())) == [Severity.ERROR]


def test_weights_that_are_meant_for_pairs_are_silent() -> None:
    assert weighed(weights=(64, 64)) == []  # a kernel
    assert weighed(weights=None) == []
    assert weighed(weights=(64,), table=(64,)) == []
    assert weighed(weights=(5, 1), table=(5, 64)) == []  # five temperatures
    assert weighed(loss=(1,), weights=(1, 1), table=(1, 1)) == []
    assert weighed(("mean", (64,)), ("amax", ())) == []  # of the mean of each
    assert weighed(("amax", (64,)), ("mean", ())) == []
    assert weighed(("neg", (64, 64))) == []
    assert weighed(loss=(64, 1), weights=(64,), name="UnsqueezeBackward0") == []  # by hand
    assert weighed(in_loss=False) == []
    assert weighed(loss=(), weights=None, table=()) == []
