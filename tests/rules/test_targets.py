"""What is wrong with the targets of one loss."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.rules._targets import (
    class_labels,
    class_numbers,
    different_labels,
    fit,
    not_indices,
    outer,
)
from gradlint.trace import LossFacts, TensorFacts

OUTPUT = TensorFacts("output", (64, 5), "float32")
LABELS = TensorFacts("target", (64,), "int64", 0, 4, unique=5)


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ((64, 1), (64,), (64, 64)),
        ((64, 1), (64, 1), None),
        ((64, 5), (5,), None),
        ((3, 4), (4, 3), None),
        ((), (64,), None),
    ],
)
def test_an_outer_difference_is_larger_than_both_sides(
    first: tuple[int, ...], second: tuple[int, ...], result: tuple[int, ...] | None
) -> None:
    assert outer(first, second) == result


def test_shapes_fit_where_they_broadcast() -> None:
    assert fit((64, 5), (5,))
    assert fit((64, 1), (64,))
    assert not fit((64, 5), (64, 4))


@pytest.mark.parametrize(
    ("loss", "count"),
    [
        pytest.param(LossFacts("nll", output=OUTPUT, target=LABELS), 5, id="labels"),
        pytest.param(LossFacts("nll", target=LABELS), 5, id="output-unknown"),
        pytest.param(
            LossFacts("nll", output=OUTPUT, target=LABELS, ignore_index=4), 4, id="one-is-ignored"
        ),
        pytest.param(LossFacts("nll", output=OUTPUT), None, id="targets-unknown"),
        pytest.param(
            LossFacts("nll", output=OUTPUT, target=TensorFacts("t", (64,), "float32", unique=5)),
            None,
            id="numbers",
        ),
        pytest.param(
            LossFacts("nll", output=OUTPUT, target=TensorFacts("t", (64,), "int64")),
            None,
            id="not-counted",
        ),
        pytest.param(
            LossFacts("nll", output=OUTPUT, target=TensorFacts("t", (64, 5), "int64", unique=2)),
            None,
            id="one-hot-rows",
        ),
    ],
)
def test_labels_are_counted_without_those_ignored(loss: LossFacts, count: int | None) -> None:
    assert different_labels(loss) == count


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "says"),
    [
        pytest.param("cross_entropy", (64, 5), "int64", "(one-hot)", id="one-hot"),
        pytest.param("cross_entropy", (64, 1), "int64", "cross_entropy wants (64,)", id="column"),
        pytest.param("cross_entropy", (48,), "int64", "the output (64, 5)", id="fewer"),
        pytest.param("cross_entropy", (64,), "float32", "int64 of shape (64,)", id="float-labels"),
        pytest.param("nll", (64, 5), "float32", "int64 of shape (64,)", id="rows-to-nll"),
        pytest.param("cross_entropy", (64, 4), "float32", "wants probabilities", id="narrow-rows"),
    ],
)
def test_what_targets_are_instead_of_indices_is_named(
    kind: str, shape: tuple[int, ...], dtype: str, says: str
) -> None:
    fault = not_indices(LossFacts(kind), TensorFacts("target", shape, dtype), OUTPUT)

    assert fault is not None
    assert says in fault[0]


def test_numbers_of_another_shape_are_no_rows_of_probabilities() -> None:
    numbers = TensorFacts("target", (320,), "float32", -1.0, 4.0, mean=0.5)

    assert class_labels(LossFacts("cross_entropy", classes=5), numbers, OUTPUT) is None


@pytest.mark.parametrize(
    ("output", "target", "flagged"),
    [
        pytest.param((64, 5), {}, True, id="class-numbers"),
        pytest.param((64, 5), {"whole": False}, False, id="between-the-numbers"),
        pytest.param((64, 5), {"maximum": 3.0}, False, id="another-range"),
        pytest.param((64, 5), {"minimum": 1.0}, False, id="not-from-zero"),
        pytest.param((64, 5), {"unique": 6}, False, id="more-numbers-than-columns"),
        pytest.param((64, 5), {"shape": (64, 5)}, False, id="a-column-each"),
        pytest.param((64, 2), {"maximum": 1.0, "unique": 2}, False, id="two-columns"),
        pytest.param((64,), {"shape": (1,), "maximum": -1.0}, False, id="no-columns"),
    ],
)
def test_class_numbers_repeated_for_every_column_are_named(
    output: tuple[int, ...], target: dict[str, Any], flagged: bool
) -> None:
    numbers = {"shape": (64, 1), "minimum": 0.0, "maximum": 4.0, "whole": True, "unique": 5}
    facts = TensorFacts(name="target", dtype="float32", **{**numbers, **target})

    assert (class_numbers(TensorFacts("o", output, "float32"), facts) is not None) is flagged
