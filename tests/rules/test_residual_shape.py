from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.residual_shape import ResidualShape
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, ParameterFacts, Trace

Shape = tuple[int, ...]


def op(number: int, kind: str, shape: Shape, *inputs: int, **more: object) -> Operation:
    return Operation(number, kind, kind, str(number), inputs, shape=shape, **more)  # type: ignore[arg-type]


def addition(number: int, shape: Shape, first: int, second: int) -> Operation:
    return op(number, "add", shape, first, second, attributes={"broadcast": True})


def messages(*operations: Operation) -> list[str]:
    return [f.message for f in findings_of(ResidualShape(), trace_of(operations=operations))]


def residual(trunk: Shape, branch: Shape, result: Shape, *, kind: str = "linear") -> list[str]:
    return messages(
        op(0, kind, trunk),
        op(1, kind, branch, 0),
        op(2, "relu", branch, 1),
        addition(3, result, 0, 2),
    )


@pytest.mark.parametrize(
    ("trunk", "branch", "kind", "flagged"),
    [
        pytest.param((8, 16), (8, 1), "linear", True, id="one-feature"),
        pytest.param((8, 7, 16), (8, 7, 1), "linear", True, id="one-feature-a-position"),
        pytest.param((8, 16, 5, 5), (8, 1, 5, 5), "conv", True, id="one-channel"),
        pytest.param((8, 16, 5, 5), (8, 16, 1, 1), "conv", False, id="global-context"),
        pytest.param((8, 7, 16), (8, 1, 16), "linear", False, id="one-vector-for-all-positions"),
        pytest.param((8, 16), (1, 16), "linear", False, id="one-vector-for-the-batch"),
    ],
)
def test_a_branch_of_one_feature_is_an_error(trunk, branch, kind, flagged) -> None:
    assert bool(residual(trunk, branch, trunk, kind=kind)) is flagged


def test_siblings_are_no_residual() -> None:
    dueling = messages(
        op(0, "linear", (8, 32)),
        op(1, "linear", (8, 1), 0),
        op(2, "linear", (8, 5), 0),
        addition(3, (8, 5), 1, 2),
    )

    assert dueling == []


def test_a_mean_over_features_is_added_on_purpose() -> None:
    centered = messages(
        op(0, "linear", (8, 16)), op(1, "mean", (8, 1), 0), addition(2, (8, 16), 0, 1)
    )

    assert centered == []


def test_a_table_of_all_pairs_is_an_error() -> None:
    found = messages(
        op(0, "linear", (8, 1)),
        op(1, "linear", (8, 4)),
        op(2, "sum", (8,), 1),
        addition(3, (8, 8), 0, 2),
    )

    assert found == ["(8, 1) + (8,) gives (8, 8): every sample is added to every other"]


def test_axes_put_in_on_purpose_are_silent() -> None:
    additive_attention = messages(
        op(0, "linear", (8, 6, 4)),
        op(1, "linear", (8, 6, 4)),
        op(2, "squeeze", (8, 6, 1, 4), 0),
        op(3, "squeeze", (8, 1, 6, 4), 1),
        addition(4, (8, 6, 6, 4), 2, 3),
    )
    pairs = messages(
        op(0, "linear", (8, 4)),
        op(1, "squeeze", (8, 1, 4), 0),
        addition(2, (8, 8, 4), 1, 0),
    )

    assert additive_attention == []
    assert pairs == []


def test_equal_shapes_are_silent() -> None:
    plain = op(2, "add", (8, 16), 0, 1)

    assert messages(op(0, "linear", (8, 16)), op(1, "linear", (8, 16), 0), plain) == []
    assert messages() == []


def onto_the_input(given: Shape) -> Trace:
    branch = op(0, "linear", (8, 1), missing=1)
    addition = op(1, "shift", (8, 16), 0, missing=1)
    module = ModuleFacts("1", "Block", input_shape=given)
    return trace_of(operations=(branch, addition), modules=(module,))


def test_a_branch_of_one_feature_added_to_the_input_is_an_error() -> None:
    assert len(findings_of(ResidualShape(), onto_the_input((8, 16)))) == 1
    assert findings_of(ResidualShape(), onto_the_input((8, 12))) == ()


def test_it_is_an_error() -> None:
    trace = onto_the_input((8, 16))

    (found,) = findings_of(ResidualShape(), trace)

    assert found.severity is Severity.ERROR
    assert found.message == "(8, 16) + (8, 1) gives (8, 16): one feature of 0 is added to all"


@pytest.mark.parametrize(
    ("last", "kind", "flagged"),
    [
        pytest.param((16, 1), "squeeze", True, id="feature-axis-squeezed-away"),
        pytest.param((16, 16), "mean", False, id="mean-over-the-batch"),
        pytest.param((16, 16), "squeeze", False, id="no-axis-of-one"),
    ],
)
def test_samples_lined_up_with_features_are_an_error(last: Shape, kind: str, flagged: bool) -> None:
    found = messages(
        op(0, "linear", (16, 16)),
        op(1, "linear", last, 0),
        op(2, kind, (16,), 1),
        addition(3, (16, 16), 0, 2),
    )

    assert bool(found) is flagged


def test_what_torch_did_not_broadcast_is_silent() -> None:
    """The recorded shape of an operation with several results is that of one of them."""
    plain = op(2, "add", (8, 16), 0, 1)

    assert messages(op(0, "linear", (8, 16)), op(1, "linear", (8, 1), 0), plain) == []


def test_a_constant_that_is_added_is_no_branch() -> None:
    constant = op(1, "add", (8, 16), 0, missing=1, attributes={"broadcast": True})

    assert messages(op(0, "linear", (8, 1)), constant) == []


@pytest.mark.parametrize(
    ("trunk", "branch", "result"),
    [((), (16,), (16, 16)), ((16,), (), (16, 16)), ((16, 16), (16,), ())],
    ids=["one-side", "other-side", "sum"],
)
def test_unknown_shapes_are_silent(trunk: Shape, branch: Shape, result: Shape) -> None:
    squeezed = (
        op(0, "linear", trunk),
        op(1, "linear", (16, 1), 0),
        op(2, "squeeze", branch, 1),
        addition(3, result, 0, 2),
    )

    assert messages(*squeezed) == []


@pytest.mark.parametrize(
    "changes",
    [{"in_loss": True}, {"missing": 0}, {"missing": 2}, {"inputs": ()}, {"module": "elsewhere"}],
    ids=["in-the-loss", "a-number", "two-constants", "no-branch", "unknown-module"],
)
def test_other_shifts_are_silent(changes: dict[str, object]) -> None:
    trace = onto_the_input((8, 16))
    branch, shift = trace.graph
    operations = (branch, replace(shift, **changes))  # type: ignore[arg-type]

    assert findings_of(ResidualShape(), trace.but(graph=Graph(operations))) == ()


def test_a_branch_without_a_batch_axis_is_silent() -> None:
    trace = onto_the_input((8, 16))
    branch, shift = trace.graph
    operations = (replace(branch, shape=(1,)), shift)

    assert findings_of(ResidualShape(), trace.but(graph=Graph(operations))) == ()


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        pytest.param((8, 6, 1), (8, 1, 6), (8, 6, 6), id="axes-of-one-kept-by-a-sum"),
        pytest.param((8, 1), (5,), (8, 5), id="one-number-a-class"),
    ],
)
def test_tables_that_are_meant_are_silent(first: Shape, second: Shape, result: Shape) -> None:
    """Additive attention; a score of each sample and a bias of each class."""
    assert messages(op(0, "sum", first), op(1, "sum", second), addition(2, result, 0, 1)) == []


def test_an_axis_put_into_the_second_side_is_silent() -> None:
    pairs = messages(
        op(0, "linear", (8, 4)),
        op(1, "squeeze", (8, 1, 4), 0),
        addition(2, (8, 8, 4), 0, 1),
    )

    assert pairs == []


def test_a_vector_has_no_axis_of_features() -> None:
    assert residual((16,), (1,), (16,)) == []


def test_a_row_read_by_a_wider_branch_is_no_trunk() -> None:
    assert residual((16,), (8, 1), (8, 16)) == []


def test_a_score_of_each_position_put_back_on_purpose_is_silent() -> None:
    gated = messages(
        op(0, "linear", (8, 7, 16)),
        op(1, "linear", (8, 7, 1), 0),
        op(2, "squeeze", (8, 7), 1),
        op(3, "squeeze", (8, 7, 1), 2),
        addition(4, (8, 7, 16), 0, 3),
    )

    assert gated == []


@pytest.mark.parametrize(
    "branch",
    [
        pytest.param(
            (op(1, "mean", (8, 1), 0), op(2, "relu", (8, 1), 1)), id="a-mean-over-features"
        ),
        pytest.param(
            (op(1, "linear", (8,), 0), op(2, "clone", (8, 1), 1)), id="a-layer-of-another-rank"
        ),
        pytest.param(
            (op(1, "linear", (8, 1), 0), op(2, "concat", (8, 1), 1, 0)), id="of-several-parts"
        ),
    ],
)
def test_what_is_no_layer_of_one_feature_is_silent(branch: tuple[Operation, ...]) -> None:
    assert messages(op(0, "linear", (8, 16)), *branch, addition(3, (8, 16), 0, 2)) == []


@pytest.mark.parametrize(
    ("trunk", "read"),
    [
        pytest.param((4, 16), 0, id="a-number-a-feature"),
        pytest.param((16, 16), 1, id="of-another-signal"),
    ],
)
def test_one_number_of_each_feature_or_of_another_signal_is_silent(trunk: Shape, read: int) -> None:
    found = messages(
        op(0, "linear", trunk),
        op(1, "linear", (16, 16)),
        op(2, "linear", (16, 1), read),
        op(3, "squeeze", (16,), 2),
        addition(4, trunk, 0, 3),
    )

    assert found == []


def valid_branch(
    *lengths: int,
    kernel: tuple[int, ...] = (16, 16, 9),
    kind: str = "conv",
    between: str = "gelu",
    batch: int = 8,
    width: int = 16,
) -> Trace:
    """A trunk and a branch of convolutions after which the axis is as long as `lengths` say."""
    operations = [op(0, "conv", (8, 16, 33), parameters=("stem.weight",))]
    for length in lengths:
        last = len(operations) - 1
        shape = (batch, width, length)
        operations.append(op(last + 1, kind, shape, last, parameters=("branch.weight",)))
        operations.append(op(last + 2, between, shape, last + 1))
    operations.append(addition(len(operations), (8, 16, 33), 0, len(operations) - 1))
    weights = [ParameterFacts("stem.weight", (16, 1, 9)), ParameterFacts("branch.weight", kernel)]
    return trace_of(operations=operations, parameters=weights)


def test_a_branch_that_lost_its_padding_is_a_warning() -> None:
    (found,) = findings_of(ResidualShape(), valid_branch(25, 17, 9, 1))

    assert found.severity is Severity.WARNING
    assert found.message == (
        "(8, 16, 33) + (8, 16, 1) gives (8, 16, 33): 4 convolutions without padding leave one "
        "position, added to all"
    )
    assert "padding" in found.help


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(valid_branch(1, kernel=(16, 16, 33)), id="one-kernel-as-long-as-the-trunk"),
        pytest.param(valid_branch(17, 9, 1), id="with-a-stride"),
        pytest.param(valid_branch(33, 1, kernel=(16, 16, 33)), id="padded-until-the-last"),
        pytest.param(valid_branch(25, 17, 9, 1, between="avg_pool"), id="pooled"),
        pytest.param(valid_branch(25, 17, 9, 1, kind="other"), id="no-convolutions"),
        pytest.param(valid_branch(25, 17, 9, 1, kernel=(16, 16)), id="kernels-of-no-length"),
        pytest.param(valid_branch(25, 17, 9, 1, kernel=()), id="unknown-kernels"),
        pytest.param(valid_branch(25, 17, 9), id="something-else-broadcasts"),
        pytest.param(valid_branch(25, 17, 9, 1, batch=1), id="for-the-whole-batch"),
    ],
)
def test_branches_that_gather_all_positions_on_purpose_are_silent(trace: Trace) -> None:
    assert not findings_of(ResidualShape(), trace)


def test_a_branch_of_another_signal_is_silent() -> None:
    trace = valid_branch(25, 17, 9, 1)
    first, second, *rest = trace.graph.operations
    apart = (first, replace(second, inputs=()), *rest)

    assert not findings_of(ResidualShape(), trace.but(graph=Graph(apart)))


def test_signals_of_another_rank_are_not_compared_axis_by_axis() -> None:
    assert messages(op(0, "conv", (8, 7, 16)), op(1, "conv", (8, 16), 0),
                    addition(2, (8, 7, 16), 0, 1)) == []  # fmt: skip
