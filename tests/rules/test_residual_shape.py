from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.residual_shape import ResidualShape
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, Trace

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
