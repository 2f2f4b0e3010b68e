"""GL102: units that are copies of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules.symmetric_units import SymmetricUnits
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import Observation, ParameterFacts, Trace


def at(metric: str, path: str, values: list[float], step: int = 0) -> list[Observation]:
    return observe(metric, path, values, kind="parameter", module=path[0], step=step)


def layer(
    initial: list[float], last: float | None = None, gradient: float = 1.0, **facts: object
) -> Trace:
    """Two layers; the first's share of symmetric units at step 0 and at the last step."""
    seen = [
        at("symmetric_share", "0.weight", initial),
        at("gradient_norm", "0.weight", [gradient] * 3),
    ]
    if last is not None:
        seen.append(at("symmetric_share", "0.weight", [last], step=40))
    return trace_of(
        *seen,
        operations=chain("linear", "relu", "linear"),
        parameters=[ParameterFacts("0.weight", (32, 8)), ParameterFacts("2.weight", (4, 32))],
        **facts,
    )


@pytest.mark.parametrize(
    ("initial", "last", "flagged"),
    [
        pytest.param([1.0, 1.0, 1.0], 1.0, True, id="copies-for-ever"),
        pytest.param([1.0, 1.0, 1.0], None, True, id="not-trained"),
        pytest.param([0.5, 0.5, 0.5], 0.5, False, id="exactly-at-the-limit"),
        pytest.param([0.51, 0.51, 0.51], 0.51, True, id="just-above"),
        pytest.param([1.0, 1.0, 1.0], 0.0, False, id="training-tells-them-apart"),
        pytest.param([0.0, 1.0, 0.0], 1.0, False, id="one-batch-only"),
        pytest.param([0.0, 0.0, 0.0], 1.0, False, id="collapsed-later"),
        pytest.param([], None, False, id="nothing-observed"),
    ],
)
def test_flags_units_equal_at_step_0_and_at_the_end(
    initial: list[float], last: float | None, flagged: bool
) -> None:
    assert bool(findings_of(SymmetricUnits(), layer(initial, last))) is flagged


def test_a_weight_without_gradient_waits_for_training() -> None:
    """What follows is zero-initialized (a gate, adaLN): its gradient comes one step later."""
    assert not findings_of(SymmetricUnits(), layer([1.0] * 3, gradient=0.0))
    assert findings_of(SymmetricUnits(), layer([1.0] * 3, last=1.0, gradient=0.0))


def test_an_output_layer_is_silent() -> None:
    """Units of classes that no batch holds get equal gradients."""
    trace = trace_of(at("symmetric_share", "2.weight", [0.97]), operations=layer([]).graph)

    assert not findings_of(SymmetricUnits(), trace)


def test_a_parameter_no_weight_layer_multiplies_by_is_silent() -> None:
    ops = (Operation(0, "parameter_add", "", "0", parameters=("0.weight",)),)
    trace = trace_of(at("symmetric_share", "0.weight", [1.0]), operations=ops)

    assert not findings_of(SymmetricUnits(), trace)


def test_loaded_weights_are_not_judged() -> None:
    assert not findings_of(SymmetricUnits(), layer([1.0] * 3, 1.0, pretrained=True))


def test_the_message_names_the_units_and_the_constant() -> None:
    trace = layer([1.0] * 3, 1.0)
    value = [*at("weight_mean", "0.weight", [0.1]), *at("weight_std", "0.weight", [0.0])]

    (found,) = findings_of(SymmetricUnits(), trace.but(observations=[*trace, *value]))

    assert found.message == (
        "100% of the 32 units have the weights and the gradient of another unit from step 0 to "
        "step 40 (limit 50%): every weight starts at 0.1"
    )
    assert (found.module, found.parameter) == ("0", "0.weight")


def constants(
    *stds: float, trainable: bool = True, shape: tuple[int, ...] = (8, 8), **facts: object
) -> Trace:
    kinds = ["linear", "relu"] * len(stds)
    paths = [f"{2 * i}.weight" for i in range(len(stds))]
    seen = [
        [
            *at("symmetric_share", path, [0.0]),
            *at("weight_std", path, [std]),
            *at("weight_mean", path, [0.1]),
        ]
        for path, std in zip(paths, stds, strict=True)
    ]
    return trace_of(
        *seen,
        operations=chain(*kinds),
        parameters=[ParameterFacts(path, shape, requires_grad=trainable) for path in paths],
        **facts,
    )


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(constants(0.0, 0.0, 0.0), True, id="all-constant"),
        pytest.param(constants(0.0, 1e-18), True, id="rounding"),
        pytest.param(constants(0.0, 0.0, 0.3), False, id="a-random-output-layer"),
        pytest.param(constants(0.3, 0.0, 0.0), False, id="a-random-first-layer"),
        pytest.param(constants(0.0), False, id="a-single-layer"),
        pytest.param(constants(0.0, 0.0, shape=(1, 1)), False, id="one-weight-each"),
        pytest.param(constants(0.0, 0.0, shape=(1, 5)), False, id="one-unit-each"),
        pytest.param(constants(0.0, 0.0, trainable=False), False, id="fixed-kernels"),
        pytest.param(constants(0.0, 0.0, pretrained=True), False, id="loaded"),
    ],
)
def test_constants_in_every_layer_are_flagged_even_with_random_biases(
    trace: Trace, flagged: bool
) -> None:
    assert bool(findings_of(SymmetricUnits(), trace)) is flagged


def test_the_message_of_constants_names_the_value() -> None:
    (found,) = findings_of(SymmetricUnits(), constants(0.0, 0.0))

    assert found.message == (
        "every weight starts at 0.1, and at a constant in all 2 weight layers: nothing but "
        "biases tells units apart (and 1 more place)"
    )


def test_units_that_were_equal_only_later_are_no_initialization() -> None:
    """The share of the first step was not measured."""
    trace = layer([], last=1.0)

    assert not findings_of(SymmetricUnits(), trace)


@pytest.mark.parametrize(
    "changes",
    [{"requires_grad": False}, {"shape": (1, 1)}],
    ids=["a-fixed-kernel-in-front", "one-weight-in-front"],
)
def test_a_constant_that_has_to_be_one_says_nothing_of_the_others(changes: dict[str, Any]) -> None:
    trace = constants(0.0, 0.0, 0.0)
    first = replace(trace.parameters["0.weight"], **changes)

    assert not findings_of(
        SymmetricUnits(), trace.but(parameters={**trace.parameters, "0.weight": first})
    )


def test_a_layer_whose_weight_is_not_known_counts_as_random() -> None:
    trace = constants(0.0, 0.0)
    unknown = Operation(4, "linear", "", "4", (3,))

    assert not findings_of(SymmetricUnits(), trace.but(graph=Graph((*trace.graph, unknown))))


def test_an_output_layer_in_front_of_weights_of_the_loss_is_silent() -> None:
    operations = (
        *layer([]).graph,
        Operation(3, "linear", "", None, (2,), ("proxies",), in_loss=True),
    )
    trace = trace_of(at("symmetric_share", "2.weight", [0.97]), operations=operations)

    assert not findings_of(SymmetricUnits(), trace)


def factors(
    *,
    first: float = 0.0,
    second: float = 0.0,
    gradients: dict[str, list[float]] | None = None,
    kind: str = "mul",
    lookup: str = "embedding",
    between: str = "view",
    trainable: bool = True,
    in_optimizer: bool | None = True,
    second_input: int = 1,
) -> Trace:
    """Two tables, `a` and `b`, that multiply each other behind a reshape."""
    given = {"a": [0.0] * 4, "b": [0.0] * 4} | (gradients or {})
    seen = []
    for path, largest in (("a", first), ("b", second)):
        weight = f"{path}.weight"
        seen.append(at("weight_abs_max", weight, [largest]))
        seen.append(at("gradient_norm", weight, given[path][:1]))
        seen.append(
            observe("gradient_norm", weight, given[path][1:], kind="parameter", module=path)
        )
    ops = (
        Operation(0, lookup, "", "a", parameters=("a.weight",), site="a"),
        Operation(1, lookup, "", "b", parameters=("b.weight",), site="b"),
        Operation(2, between, "", None, inputs=(0,)),
        Operation(3, between, "", None, inputs=(second_input,)),
        Operation(4, kind, "", None, inputs=(2, 3)),
        Operation(5, "mse", "", None, inputs=(4,), in_loss=True),
    )
    parameters = [
        ParameterFacts(
            f"{path}.weight", (30, 4), module=path, requires_grad=trainable,
            in_optimizer=in_optimizer,
        )
        for path in "ab"
    ]  # fmt: skip
    return trace_of(*seen, operations=ops, parameters=parameters)


@pytest.mark.parametrize("kind", ["mul", "matmul"])
@pytest.mark.parametrize("lookup", ["embedding", "linear", "conv"])
def test_two_zero_factors_without_gradient_never_move(kind: str, lookup: str) -> None:
    (found,) = findings_of(SymmetricUnits(), factors(kind=kind, lookup=lookup))

    assert "a.weight and b.weight multiply each other" in found.message
    assert "step 3" in found.message
    assert found.evidence["constant"] is True


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(factors(first=0.1), id="one-is-drawn"),
        pytest.param(factors(second=0.1), id="the-other-is-drawn"),
        pytest.param(factors(gradients={"a": [0.0, 0.0, 0.0, 0.1]}), id="one-gets-going"),
        pytest.param(factors(gradients={"b": [0.1, 0.0, 0.0, 0.0]}), id="one-had-a-gradient"),
        pytest.param(factors(gradients={"a": [0.0]}), id="not-trained"),
        pytest.param(factors(gradients={"b": [0.0, 0.0, 0.0]}), id="too-few-steps"),
        pytest.param(factors(gradients={"a": []}), id="never-a-gradient"),
        pytest.param(factors(kind="add"), id="added"),
        pytest.param(factors(lookup="rnn"), id="a-recurrent-layer-is-not-its-weights"),
        pytest.param(factors(lookup="div"), id="computed"),
        pytest.param(factors(between="relu"), id="not-what-multiplies"),
        pytest.param(factors(trainable=False), id="frozen"),
        pytest.param(factors(in_optimizer=False), id="held-by-none"),
        pytest.param(factors(second_input=0), id="a-square"),
    ],
)
def test_factors_that_move_or_are_not_meant_to_are_silent(trace: Trace) -> None:
    assert not findings_of(SymmetricUnits(), trace, exemptions=())


def test_a_square_of_one_operation_is_silent() -> None:
    trace = factors()
    ops = [*trace.graph.operations[:4], replace(trace.graph.operations[4], inputs=(2, 2))]

    assert not findings_of(SymmetricUnits(), trace.but(graph=Graph(tuple(ops))))


def test_two_products_of_the_same_factors_are_told_once() -> None:
    trace = factors()
    ops = [*trace.graph.operations[:5], replace(trace.graph.operations[4], id=5)]

    assert len(list(SymmetricUnits().check(trace.but(graph=Graph(tuple(ops)))))) == 1


def test_a_table_that_a_constant_multiplies_is_silent() -> None:
    trace = factors()
    ops = [*trace.graph.operations[:4], replace(trace.graph.operations[4], inputs=(2,), missing=1)]

    assert not findings_of(SymmetricUnits(), trace.but(graph=Graph(tuple(ops))))


def test_factors_whose_parameters_are_unknown_are_silent() -> None:
    assert not findings_of(SymmetricUnits(), factors().but(parameters={}), exemptions=())
