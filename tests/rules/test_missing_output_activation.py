from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.rules.missing_output_activation import MissingOutputActivation
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import Event, LossFacts, TensorFacts, Trace


def nll(low: float, high: float, maximum: float = -0.1) -> Trace:
    output = TensorFacts("output", (8, 5), "float32", minimum=-9.0, maximum=maximum)
    loss = LossFacts("nll", output=output, classes=5, row_sum_min=low, row_sum_max=high)
    return trace_of(losses=(loss,), operations=chain("linear", "nll"))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param((4.3, 8.3), Severity.ERROR, id="raw-outputs"),
        pytest.param((1.0, 1.0), None, id="log-probabilities"),
        pytest.param((1.0, 1.05), None, id="log-of-p-plus-epsilon"),
        pytest.param((1.0, 1.1), None, id="exactly-at-the-limit"),
        pytest.param((1.0, 1.11), Severity.ERROR, id="over-it"),
        pytest.param((0.1, 0.5), Severity.WARNING, id="outcomes-left-out"),
        pytest.param((0.1, 0.95), None, id="one-row-is-whole"),
    ],
)
def test_nll_wants_rows_whose_exponentials_sum_to_one(rows, expected) -> None:
    found = findings_of(MissingOutputActivation(), nll(*rows))

    assert [f.severity for f in found] == ([] if expected is None else [expected])


def bce(low: float, high: float) -> Trace:
    output = TensorFacts("output", (8, 1), "float32", minimum=low, maximum=high)
    return trace_of(losses=(LossFacts("bce", output=output),))


@pytest.mark.parametrize(
    ("low", "high", "flagged"),
    [
        (-0.3, 0.9, True),
        (0.1, 1.2, True),
        (0.0, 1.0, False),
    ],
)
def test_bce_wants_values_between_zero_and_one(low, high, flagged) -> None:
    assert bool(findings_of(MissingOutputActivation(), bce(low, high))) is flagged


def test_what_torch_raised_is_named() -> None:
    message = "the loss raised RuntimeError: all elements of input should be between 0 and 1"
    event = Event("exception", detail={"phase": "loss", "message": message})

    (found,) = findings_of(MissingOutputActivation(), trace_of(events=(event,)))

    assert found.message == "binary_cross_entropy raised: its input is not in 0…1"


def test_the_message_says_what_the_rows_sum_to() -> None:
    (found,) = findings_of(MissingOutputActivation(), nll(4.3, 8.3, 0.92))

    assert found.message == (
        "NLLLoss receives values that are no log-probabilities: exp sums to 4.3…8.3 a row where 1 "
        "is due, the largest value is 0.92"
    )
    assert found.module == "0"


@pytest.mark.parametrize(
    ("last", "hint"), [("softmax", "logarithm"), ("log_softmax", "class axis"), ("linear", "End")]
)
def test_the_help_depends_on_what_is_there(last: str, hint: str) -> None:
    trace = nll(4.3, 8.3).but()
    operations = chain("linear", last, "nll")

    (found,) = findings_of(
        MissingOutputActivation(), trace_of(losses=trace.facts.losses, operations=operations)
    )

    assert hint in found.help


def test_cross_entropy_is_none_of_its_business() -> None:
    output = TensorFacts("output", (8, 5), "float32", minimum=-9.0, maximum=9.0)
    loss = LossFacts("cross_entropy", output=output, row_sum_min=3.0, row_sum_max=4.0)

    assert findings_of(MissingOutputActivation(), trace_of(losses=(loss,))) == ()
    assert findings_of(MissingOutputActivation(), trace_of()) == ()


@pytest.mark.parametrize(
    ("kinds", "mean", "flagged"),
    [
        pytest.param(("linear", "softmax", "mask", "shift"), 0.2, True, id="probabilities"),
        pytest.param(("linear", "log_softmax", "mask", "shift"), 0.2, False, id="their-logarithm"),
        pytest.param(("linear", "softmax", "log", "mask", "shift"), 0.2, False, id="log-of-them"),
        pytest.param(("linear", "softmax", "mask", "shift"), 0.5, False, id="other-targets"),
        pytest.param(("linear", "softmax", "shift", "pow"), 0.2, False, id="a-difference"),
    ],
)
def test_kl_div_of_probabilities_is_told_by_the_graph(kinds, mean, flagged) -> None:
    operations = [
        replace(op, shape=(8, 5), in_loss=op.kind in ("mask", "shift", "pow"))
        for op in chain(*kinds, "sum")
    ]
    target = TensorFacts("target", (8, 5), "float32", mean=mean)

    found = findings_of(
        MissingOutputActivation(), trace_of(operations=operations, targets=(target,))
    )

    assert [f.message for f in found] == (
        ["KLDivLoss receives the softmax itself, not its logarithm"] if flagged else []
    )


@pytest.mark.parametrize(
    ("product", "shape"),
    [
        pytest.param("scale", (8, 5), id="a-number-times-probabilities"),
        pytest.param("mask", (8, 1), id="one-column-of-them"),
    ],
)
def test_other_differences_with_probabilities_are_silent(
    product: str, shape: tuple[int, ...]
) -> None:
    softmax, multiplied, shifted = (
        replace(op, shape=(8, 5), in_loss=i > 1)
        for i, op in enumerate(chain("linear", "softmax", product, "shift"))
        if i
    )
    first = replace(chain("linear")[0], shape=(8, 5))
    target = TensorFacts("target", (8, 5), "float32", mean=0.2)
    operations = (first, softmax, replace(multiplied, shape=shape), shifted)

    found = findings_of(
        MissingOutputActivation(), trace_of(operations=operations, targets=(target,))
    )

    assert found == ()


def test_a_shift_inside_the_model_is_no_loss() -> None:
    trace = trace_of(operations=chain("linear", "shift", "mse"))

    assert findings_of(MissingOutputActivation(), trace) == ()


@pytest.mark.parametrize(
    "loss",
    [
        LossFacts("bce"),
        LossFacts("nll", output=TensorFacts("o", (8, 5), "float32"), row_sum_min=4.0),
        LossFacts("nll", output=TensorFacts("o", (8, 5), "float32"), row_sum_max=4.0),
    ],
    ids=["output-unknown", "largest-unknown", "smallest-unknown"],
)
def test_unknown_values_are_silent(loss: LossFacts) -> None:
    assert findings_of(MissingOutputActivation(), trace_of(losses=(loss,))) == ()


@pytest.mark.parametrize(("rows", "flagged"), [((4.9, 6.7), True), ((1.0, 1.0), False)])
def test_ctc_wants_log_probabilities_over_the_last_axis(rows, flagged) -> None:
    output = TensorFacts("output", (20, 8, 6), "float32", minimum=-9.0, maximum=0.5)
    loss = LossFacts("ctc", output=output, row_sum_min=rows[0], row_sum_max=rows[1])

    found = findings_of(MissingOutputActivation(), trace_of(losses=(loss,)))

    assert [f.message[:7] for f in found] == (["CTCLoss"] if flagged else [])


@pytest.mark.parametrize(("bad", "flagged"), [(0, True), (3, False)])
def test_a_loss_that_raised_at_nan_is_another_rule_s(bad: int, flagged: bool) -> None:
    message = "the loss raised RuntimeError: all elements of input should be between 0 and 1"
    event = Event("exception", detail={"phase": "loss", "message": message})
    output = TensorFacts("output", (8, 1), "float32", minimum=0.1, maximum=0.9, non_finite=bad)
    losses = (LossFacts("bce"), LossFacts("mse", output=output), LossFacts("bce", output=output))

    observed = trace_of(events=(event,), losses=losses)

    assert bool(findings_of(MissingOutputActivation(), observed)) is flagged


def test_a_loss_that_raised_is_not_told_twice() -> None:
    message = "the loss raised RuntimeError: all elements of input should be between 0 and 1"
    trace = trace_of(
        events=(Event("exception", detail={"phase": "loss", "message": message}),),
        outputs=(TensorFacts("output", (8, 1), "float32", minimum=-0.3, maximum=0.9),),
        targets=(TensorFacts("target", (8, 1), "float32", maximum=1.0),),
    )

    (found,) = MissingOutputActivation().check(trace)

    assert found.message.startswith("BCELoss receives values from -0.3 to 0.9")


def by_hand(seen: dict[str, dict[str, float]]) -> Trace:
    return trace_of(operations=chain("linear", "mean"), probes={"written-losses": seen})


@pytest.mark.parametrize(("low", "flagged"), [(-0.3, True), (0.0, False)])
def test_an_overlap_divides_by_a_sum_that_must_not_reach_zero(low: float, flagged: bool) -> None:
    seen = {"overlap": {"minimum": low, "maximum": 4.0}}

    found = findings_of(MissingOutputActivation(), by_hand(seen))

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("values", "rows", "flagged"),
    [
        pytest.param((-1.0, 0.9), (4.3, 8.3), True, id="raw-scores"),
        pytest.param((-9.0, -0.1), (1.0, 1.1), False, id="log-probabilities"),
        pytest.param((0.0, 1.0), (4.3, 5.7), False, id="probabilities"),
        pytest.param((0.1, 1.2), (4.3, 5.7), True, id="above-one"),
    ],
)
def test_a_policy_s_gradient_is_that_of_log_probabilities(values, rows, flagged) -> None:
    numbers = (*values, *rows)
    names = ("minimum", "maximum", "row_sum_min", "row_sum_max")
    seen = {"chosen": dict(zip(names, numbers, strict=True))}

    found = findings_of(MissingOutputActivation(), by_hand(seen))

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("last", "sums", "flagged"),
    [
        pytest.param("softmax", {"row_sum_min": 1.0, "row_sum_max": 1.0}, True, id="probabilities"),
        pytest.param(
            "log_softmax", {"row_sum_min": 1.0, "row_sum_max": 1.0}, False, id="logarithm"
        ),
        pytest.param("softmax", {"row_sum_min": 1.0, "row_sum_max": 1.1}, False, id="other-sums"),
        pytest.param("softmax", {"row_sum_min": 0.9, "row_sum_max": 1.0}, False, id="less"),
        pytest.param("softmax", {}, False, id="not-kept"),
    ],
)
def test_kl_div_in_a_loop_is_told_by_the_factor_that_autograd_kept(last, sums, flagged) -> None:
    operations = [
        replace(op, shape=(8, 5), in_loss=op.kind in ("mask", "shift"))
        for op in chain("linear", last, "mask", "shift", "sum")
    ]
    seen = {"divergence": sums} if sums else {}

    found = findings_of(
        MissingOutputActivation(),
        trace_of(operations=operations, probes={"written-losses": seen}),
    )

    assert bool(found) is flagged
