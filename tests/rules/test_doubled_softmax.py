from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.doubled_softmax import DoubledSoftmax
from gradlint.testing import findings_of, trace_of
from gradlint.trace import LossFacts, TensorFacts, Trace


def ops(*steps: tuple[str, dict[str, object]]) -> tuple[Operation, ...]:
    """A chain of operations over 5 classes; the attributes `loss` and `shape` are taken out."""
    made = []
    for i, (kind, attributes) in enumerate(steps):
        rest = dict(attributes)
        loss = bool(rest.pop("loss", False))
        shape = rest.pop("shape", (8, 5))
        made.append(
            Operation(
                i,
                kind,
                kind,
                module=None if loss else str(i),
                inputs=(i - 1,) if i else (),
                in_loss=loss,
                shape=shape,  # type: ignore[arg-type]
                attributes=rest,
            )
        )
    return tuple(made)


LINEAR = ("linear", {})
LOG_SOFTMAX = ("log_softmax", {"dim": 1, "loss": True})
LOGSIGMOID = ("logsigmoid", {"loss": True})
NLL = ("nll", {"loss": True, "shape": ()})


def judged(*steps: tuple[str, dict[str, object]]) -> list[tuple[Severity, str | None]]:
    found = findings_of(DoubledSoftmax(), trace_of(operations=ops(*steps)))
    return [(f.severity, f.module) for f in found]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([LINEAR, ("softmax", {"dim": 1}), LOG_SOFTMAX, NLL], "1", id="in-the-model"),
        pytest.param(
            [LINEAR, ("softmax", {"dim": 1}), ("view", {}), LOG_SOFTMAX, NLL], "1", id="then-a-view"
        ),
        pytest.param([LINEAR, ("sigmoid", {}), LOG_SOFTMAX, NLL], "1", id="sigmoid"),
        pytest.param([LINEAR, ("softmax", {"dim": 1}), LOG_SOFTMAX], "1", id="soft-targets"),
        pytest.param(
            [LINEAR, ("sigmoid", {}), ("bce_with_logits", {"loss": True})], "1", id="binary"
        ),
        pytest.param(
            [LINEAR, ("sigmoid", {}), ("sigmoid", {"loss": True}), ("bce", {"loss": True})],
            "1",
            id="two-sigmoids",
        ),
        pytest.param([LINEAR, ("sigmoid", {}), ("view", {}), LOGSIGMOID], "1", id="logsigmoid"),
        pytest.param([LINEAR, ("sigmoid", {}), ("neg", {}), LOGSIGMOID], "1", id="of-the-other"),
    ],
)
def test_an_activation_the_loss_repeats_is_an_error(steps, expected) -> None:
    assert judged(*steps) == [(Severity.ERROR, expected)]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([LINEAR, LOG_SOFTMAX, NLL], id="cross-entropy-on-logits"),
        pytest.param([LINEAR, ("log_softmax", {"dim": 1}), NLL], id="log-softmax-and-nll"),
        pytest.param([LINEAR, ("sigmoid", {}), ("bce", {"loss": True})], id="sigmoid-and-bce"),
        pytest.param(
            [LINEAR, ("softmax", {"dim": 1}), LINEAR, LOG_SOFTMAX, NLL], id="weights-between"
        ),
        pytest.param(
            [LINEAR, ("softmax", {"dim": 1}), ("scale", {}), LOG_SOFTMAX, NLL], id="a-temperature"
        ),
        pytest.param(
            [LINEAR, ("softmax", {"dim": 1}), ("log", {}), LOG_SOFTMAX, NLL], id="its-logarithm"
        ),
        pytest.param([LINEAR, ("softmax", {"dim": 0}), LOG_SOFTMAX, NLL], id="over-the-other-axis"),
        pytest.param([LINEAR, LOGSIGMOID], id="logsigmoid-of-logits"),
        pytest.param([LINEAR, ("sigmoid", {}), ("logsigmoid", {})], id="a-gate-of-the-model"),
        pytest.param(
            [LINEAR, ("sigmoid", {}), ("sub", {"loss": True}), LOGSIGMOID],
            id="ranked-by-difference",
        ),
        pytest.param(
            [LINEAR, ("sigmoid", {}), ("mask", {"loss": True}), LOGSIGMOID], id="times-data"
        ),
        pytest.param([LINEAR, ("tanh", {}), LOGSIGMOID], id="logsigmoid-of-something-else"),
        pytest.param([], id="nothing"),
    ],
)
def test_what_only_looks_like_it_is_silent(steps) -> None:
    assert judged(*steps) == []


def test_log_softmax_in_front_of_cross_entropy_is_a_note() -> None:
    found = judged(LINEAR, ("log_softmax", {"dim": 1}), LOG_SOFTMAX, NLL)

    assert found == [(Severity.NOTE, "1")]


def test_a_softmax_behind_a_transposition_is_matched_by_the_length_of_its_axis() -> None:
    softmax = ("softmax", {"dim": 1, "shape": (8, 5, 7)})
    turned = ("transpose", {"shape": (8, 7, 5)})
    other = ("softmax", {"dim": 2, "shape": (8, 5, 7)})
    loss = ("log_softmax", {"dim": 2, "loss": True, "shape": (8, 7, 5)})

    assert judged(LINEAR, softmax, turned, loss, NLL) == [(Severity.ERROR, "1")]
    assert judged(LINEAR, other, turned, loss, NLL) == []


def test_a_sigmoid_that_two_logarithms_read_is_said_once() -> None:
    losses = (("logsigmoid", 1, 2), ("neg", 1, 3), ("logsigmoid", 3, 4))
    read = [Operation(i, k, k, None, (before,), in_loss=True) for k, before, i in losses]
    model = ops(LINEAR, ("sigmoid", {}))

    (found,) = findings_of(DoubledSoftmax(), trace_of(operations=(*model, *read)))

    assert found.message.startswith("sigmoid feeds the log-sigmoid of the loss")


@pytest.mark.parametrize(
    ("name", "flagged"),
    [("SoftMarginLossBackward0", True), ("MultiMarginLossBackward0", False)],
)
def test_a_logistic_loss_of_torch_squashes_and_a_hinge_does_not(name: str, flagged: bool) -> None:
    loss = Operation(2, "soft_margin", name, None, (1,), in_loss=True)
    model = ops(LINEAR, ("sigmoid", {}))

    found = findings_of(DoubledSoftmax(), trace_of(operations=(*model, loss)))

    assert bool(found) is flagged


def test_a_softmax_that_makes_the_targets_is_silent() -> None:
    student = Operation(0, "linear", "linear", "student")
    teacher = Operation(1, "softmax", "softmax", "teacher", attributes={"dim": 1})
    log = Operation(2, "log_softmax", "x", None, (0,), in_loss=True, attributes={"dim": 1})
    product = Operation(3, "mul", "mul", None, (2, 1), in_loss=True)

    found = findings_of(DoubledSoftmax(), trace_of(operations=(student, teacher, log, product)))

    assert found == ()


def by_value(low: float, high: float, rows: tuple[float, float], classes: int = 5) -> Trace:
    output = TensorFacts("output", (8, classes), "float32", minimum=low, maximum=high)
    loss = LossFacts(
        "cross_entropy",
        output=output,
        classes=classes,
        row_sum_min=rows[0],
        row_sum_max=rows[1],
    )
    return trace_of(losses=(loss,))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(by_value(0.0, 0.9, (1.0, 1.0)), True, id="rows-are-probabilities"),
        pytest.param(by_value(0.0, 0.9, (0.99, 1.0)), False, id="rows-are-not"),
        pytest.param(by_value(-0.1, 0.9, (1.0, 1.0)), False, id="below-zero"),
        pytest.param(by_value(0.0, 1.5, (1.0, 1.0)), False, id="above-one"),
        pytest.param(by_value(1.0, 1.0, (1.0, 1.0), 1), False, id="one-class-is-another-rule"),
    ],
)
def test_a_softmax_written_by_hand_is_told_by_its_values(trace, flagged) -> None:
    assert bool(findings_of(DoubledSoftmax(), trace)) is flagged


def test_the_message_names_the_lowest_loss() -> None:
    trace = trace_of(operations=ops(LINEAR, ("softmax", {"dim": 1}), LOG_SOFTMAX, NLL))

    (found,) = findings_of(DoubledSoftmax(), trace)

    assert found.message == (
        "softmax feeds cross-entropy, which applies its own softmax: its output in 0…1 keeps the "
        "loss of 5 classes above 0.9"
    )
    assert found.evidence["lowest_loss"] == pytest.approx(-math.log(math.e / (math.e + 4)))
    assert found.exact


def test_rows_below_nll_are_another_rule_s() -> None:
    (loss,) = by_value(0.0, 0.9, (1.0, 1.0)).facts.losses

    assert findings_of(DoubledSoftmax(), trace_of(losses=(replace(loss, kind="nll"),))) == ()


def test_a_square_of_scores_may_be_normalized_over_either_axis() -> None:
    over_rows = ("softmax", {"dim": 0, "shape": (5, 5)})
    over_columns = ("log_softmax", {"dim": 1, "shape": (5, 5), "loss": True})

    assert judged(LINEAR, over_rows, over_columns, NLL) == []


@pytest.mark.parametrize(
    "steps",
    [
        [("softmax", {"dim": 1}), ("log_softmax", {"loss": True})],
        [("softmax", {"dim": 1, "shape": ()}), ("view", {}), LOG_SOFTMAX],
        [
            ("softmax", {"dim": 1}),
            ("view", {}),
            ("log_softmax", {"dim": 1, "loss": True, "shape": ()}),
        ],
    ],
    ids=["axis-unknown", "its-shape-unknown", "the-loss-s-shape-unknown"],
)
def test_a_second_softmax_counts_unless_axes_are_known_to_differ(
    steps: list[tuple[str, dict[str, object]]],
) -> None:
    assert judged(LINEAR, *steps, NLL) == [(Severity.ERROR, "1")]
