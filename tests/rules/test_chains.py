"""Chains of weight layers, as GL101, GL103 and GL104 read them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules._chains import (
    chains,
    following_activation,
    initial_value,
    signal,
    trend_of,
)
from gradlint.testing import chain, observe, trace_of
from gradlint.trace import ModuleFacts


def lengths(*kinds: str) -> list[int]:
    return [len(c) for c in chains(Graph(chain(*kinds)))]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("linear", "relu", "linear", "relu", "linear"), [3]),
        (("conv", "max_pool", "relu", "view", "dropout", "linear"), [2]),
        (("linear", "layer_norm", "relu", "linear"), [1, 1]),
        (("linear", "rnn", "linear"), [1, 1]),
        (("linear", "parameter_mul", "linear"), [1, 1]),
        (("relu",), []),
    ],
)
def test_a_chain_ends_where_the_signal_is_reset(
    kinds: tuple[str, ...], expected: list[int]
) -> None:
    assert lengths(*kinds) == expected


def test_a_constant_factor_is_passed_and_a_measured_one_is_not() -> None:
    first, scale, last = chain("linear", "scale", "linear")
    constant = Operation(**{**_fields(scale), "attributes": {"scalar": 0.5}})

    assert len(list(chains(Graph((first, constant, last))))) == 1
    assert len(list(chains(Graph((first, scale, last))))) == 2


def test_the_longest_of_two_branches_is_followed() -> None:
    ops = (
        Operation(0, "linear", "", "stem"),
        Operation(1, "linear", "", "short", inputs=(0,)),
        Operation(2, "linear", "", "long", inputs=(0,)),
        Operation(3, "linear", "", "end", inputs=(2,)),
    )

    assert [[link.path for link in c] for c in chains(Graph(ops))] == [
        ["stem", "long", "end"],
        ["short"],
    ]


def test_the_loss_side_is_no_part_of_a_chain() -> None:
    ops = (Operation(0, "linear", "", "a"), Operation(1, "linear", "", None, (0,), in_loss=True))

    assert [len(c) for c in chains(Graph(ops))] == [1]


def test_two_activations_behind_one_weight_are_none() -> None:
    ops = (
        Operation(0, "linear", "", "a"),
        Operation(1, "relu", "", "a", inputs=(0,)),
        Operation(2, "tanh", "", "a", inputs=(0,)),
    )

    assert following_activation(Graph(ops), ops[0]) is None
    assert following_activation(Graph(ops[:2]), ops[0]) == ops[1]


def test_a_site_used_twice_is_left_out_of_the_signal() -> None:
    ops = chain("linear", "relu", "linear", modules={0: "fc", 2: "fc"})
    trace = trace_of(observe("activation_rms", "fc", [1.0], step=0), operations=ops)

    assert signal(trace, next(chains(trace.graph))) == []


def test_a_container_s_output_is_not_its_first_operation_s() -> None:
    trace = trace_of(
        observe("activation_rms", "0", [1.0], step=0),
        operations=chain("linear"),
        modules=[ModuleFacts("0", "Net", leaf=False)],
    )

    assert signal(trace, next(chains(trace.graph))) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 3.0, 2.0], 2.0), ([1.0, math.inf, 2.0], 1.5), ([], None)],
)
def test_the_initial_value_is_the_median_over_batches(
    values: list[float], expected: float | None
) -> None:
    trace = trace_of(observe("loss", "", values, step=0), observe("loss", "", [9.0], step=1))

    assert initial_value(trace, "loss", "") == expected


def test_an_initial_value_broken_on_most_batches_is_broken() -> None:
    trace = trace_of(observe("loss", "", [math.inf, math.inf, 2.0], step=0))

    assert initial_value(trace, "loss", "") == math.inf


def test_a_trend_is_the_steepest_part() -> None:
    trend = trend_of([1.0, 2.0, 1.0, 0.1, 0.01, 5.0], growing=False)

    assert trend is not None
    assert (trend.start, trend.layers, trend.first, trend.last) == (1, 4, 2.0, 0.01)
    assert trend.sharing == 3
    assert math.isclose(trend.decades, math.log10(0.005))
    assert math.isclose(trend.spared, trend.decades + 1)
    assert trend.end is None


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 1.0], [1.0, 2.0, 3.0]])
def test_there_is_no_falling_trend_without_a_fall(values: list[float]) -> None:
    assert trend_of(values, growing=False) is None


def _fields(op: Operation) -> dict[str, object]:
    return {name: getattr(op, name) for name in Operation.__dataclass_fields__}


def test_a_constant_matrix_hands_the_signal_on_and_a_product_of_two_signals_does_not() -> None:
    """The adjacency of a graph; attention."""
    first, product, last = chain("linear", "matmul", "linear")
    attention = Operation(**{**_fields(product), "inputs": (0, 0)})

    assert len(list(chains(Graph((first, product, last))))) == 1
    assert len(list(chains(Graph((first, attention, last))))) == 2


def test_layers_of_the_loss_are_in_no_chain() -> None:
    model, relu, judge = chain("linear", "relu", "linear")
    inside = (model, relu, replace(judge, in_loss=True))

    assert [len(c) for c in chains(Graph(inside))] == [1]


def test_a_leaf_s_output_is_its_operation_s() -> None:
    trace = trace_of(
        observe("activation_rms", "0", [2.0], step=0),
        operations=chain("linear"),
        modules=[ModuleFacts("0", "Linear")],
    )

    assert signal(trace, next(chains(trace.graph))) == [("0", 2.0)]
