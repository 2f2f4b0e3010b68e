"""GL112: weight layers with nothing nonlinear between them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules.linear_stack import LinearStack
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, ParameterFacts, Trace


def pair(
    *between: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((64, 16), (64, 64)),
    kinds: tuple[str, str] = ("linear", "linear"),
    paths: tuple[str, str] = ("0", "1"),
    extra: tuple[Operation, ...] = (),
    modules: tuple[ModuleFacts, ...] = (),
    before: str = "view",
    behind: str = "relu",
    **facts: Any,
) -> Trace:
    """Two weight layers of these shapes with `between` between them."""
    names = (f"{paths[0]}.weight", f"{paths[1]}.weight")
    operations = [
        Operation(0, before, "", "in", missing=1),
        Operation(1, kinds[0], "", paths[0], (0,), parameters=("b", names[0])),
    ]
    for kind in between:
        last = len(operations)
        operations.append(Operation(last, kind, "", "between", (last - 1,)))
    last = len(operations)
    operations.append(Operation(last, kinds[1], "", paths[1], (last - 1,), (names[1],)))
    operations.append(Operation(last + 1, behind, "", "out", (last,)))
    return trace_of(
        operations=[*operations, *extra],
        parameters=[
            ParameterFacts(names[0], shapes[0]),
            ParameterFacts(names[1], shapes[1]),
            ParameterFacts("b", (shapes[0][0],)),
        ],
        modules=modules,
        **facts,
    )


PARTS = tuple(ModuleFacts(path, "Sequential", leaf=False) for path in ("enc", "head"))
CONV = ((32, 16, 3, 3), (64, 32, 3, 3))


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(pair(), id="linear-linear"),
        pytest.param(pair("view", "dropout", "cast"), id="still-linear"),
        pytest.param(pair(shapes=((128, 784), (10, 128)), behind="nll"), id="forgotten-relu"),
        pytest.param(pair(shapes=((16, 16), (64, 16))), id="inner-width-as-the-outer"),
        pytest.param(pair(shapes=CONV, kinds=("conv", "conv")), id="conv-conv"),
        pytest.param(pair(paths=("net.0", "net.1")), id="in-one-container"),
    ],
)
def test_flags_two_layers_that_are_one(trace: Trace) -> None:
    assert findings_of(LinearStack(), trace)


SEPARATING = {
    *("relu", "gelu", "layer_norm", "batch_norm", "add", "mul", "matmul", "softmax", "max_pool"),
    *("mean", "transpose", "slice", "concat", "custom", "exp"),
}


@pytest.mark.parametrize("kind", sorted(SEPARATING))
def test_what_is_not_linear_or_mixes_other_axes_separates(kind: str) -> None:
    assert not findings_of(LinearStack(), pair(kind))


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(pair(shapes=((15, 16), (64, 15))), id="low-rank"),
        pytest.param(pair(shapes=((1, 16), (8, 1))), id="one-unit"),
        pytest.param(pair(shapes=((64, 16), (10, 640))), id="positions-flattened-together"),
        pytest.param(pair(behind="matmul"), id="attention-projection"),
        pytest.param(pair(before="matmul"), id="attention-output"),
        pytest.param(pair(behind="attention"), id="fused-attention"),
        pytest.param(pair(kinds=("conv", "linear"), shapes=CONV), id="other-kinds"),
        pytest.param(
            pair(kinds=("conv", "conv"), shapes=((32, 16, 3, 3), (64, 32, 1, 1))), id="reduction"
        ),
        pytest.param(
            pair(kinds=("conv", "conv"), shapes=((32, 16, 1, 3), (32, 32, 3, 1))), id="separable"
        ),
        pytest.param(pair(paths=("backbone.fc", "head")), id="a-head-on-a-backbone"),
        pytest.param(pair(paths=("enc.fc", "dec.fc")), id="two-parts-of-a-model"),
        pytest.param(pair(paths=("enc.2", "head.0"), modules=PARTS), id="two-sequences-of-a-model"),
        pytest.param(pair(pretrained=True), id="loaded"),
        pytest.param(pair(kinds=("rnn", "linear")), id="recurrent"),
        pytest.param(trace_of(), id="no-graph"),
    ],
)
def test_silent_where_it_is_meant(trace: Trace) -> None:
    assert not findings_of(LinearStack(), trace)


def test_an_output_used_twice_is_a_feature_of_its_own() -> None:
    skip = Operation(4, "add", "", "skip", (1, 2))

    assert not findings_of(LinearStack(), pair(extra=(skip,)))


@pytest.mark.parametrize("options", [{"groups": 16}])
def test_depthwise_convolutions_mix_nothing(options: dict[str, int]) -> None:
    depthwise = ModuleFacts("0", "Conv2d", options=options)
    trace = pair(
        kinds=("conv", "conv"), shapes=((32, 1, 3, 3), (64, 32, 3, 3)), modules=(depthwise,)
    )

    assert not findings_of(LinearStack(), trace)


@pytest.mark.parametrize(("shape", "flagged"), [((64,), True), ((1, 9, 64), False)])
def test_a_bias_is_linear_and_a_position_is_not(shape: tuple[int, ...], flagged: bool) -> None:
    first, bias, second = (
        Operation(0, "linear", "", "0", (), ("0.weight",), missing=1),
        Operation(1, "parameter_add", "", "", (0,), ("b",)),
        Operation(2, "linear", "", "1", (1,), ("1.weight",)),
    )
    parameters = [
        ParameterFacts("0.weight", (64, 16)),
        ParameterFacts("1.weight", (64, 64)),
        ParameterFacts("b", shape),
    ]
    trace = trace_of(operations=(first, bias, second), parameters=parameters)

    assert bool(findings_of(LinearStack(), trace)) is flagged


def test_blocks_of_one_class_are_one_part() -> None:
    paths = ("blocks.0.fc", "blocks.1.fc")
    blocks = tuple(ModuleFacts(f"blocks.{i}", "Block", leaf=False) for i in (0, 1))

    assert findings_of(LinearStack(), pair(paths=paths, modules=blocks))


def test_one_weight_applied_twice_is_a_recurrence() -> None:
    assert not findings_of(LinearStack(), pair(paths=("fc", "fc"), shapes=((64, 64), (64, 64))))


def test_products_of_bare_parameters_are_layers() -> None:
    operations = (
        Operation(0, "linear", "", "", missing=1, parameters=("w1",)),
        Operation(1, "linear", "", "", (0,), parameters=("w2",)),
    )
    parameters = [ParameterFacts("w1", (16, 64)), ParameterFacts("w2", (64, 4))]

    (found,) = findings_of(LinearStack(), trace_of(operations=operations, parameters=parameters))

    assert found.evidence["widths"] == [16, 64, 4]


def test_the_message_names_both_layers_and_the_widths() -> None:
    (found,) = findings_of(LinearStack(), pair())

    assert found.message == (
        "nothing nonlinear between 0 and 1: 16 → 64 → 64 is one linear layer 16 → 64"
    )
    assert found.modules == ("0", "1")


def test_a_run_without_graph_is_skipped() -> None:
    assert LinearStack().skip_reason(trace_of()) == "no graph was observed"


def changed(first: dict[str, Any], second: dict[str, Any], **settings: Any) -> Trace:
    trace = pair(**settings)
    data, one, two, behind = trace.graph
    operations = (data, replace(one, **first), replace(two, **second), behind)
    return trace.but(graph=Graph(operations))


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(changed({}, {"in_loss": True}), id="a-weight-of-the-loss"),
        pytest.param(changed({}, {"parameters": ()}), id="weight-unknown"),
        pytest.param(changed({"module": None}, {}), id="first-place-unknown"),
        pytest.param(changed({}, {"module": None}), id="second-place-unknown"),
        pytest.param(
            changed(
                {"attributes": {"groups": 16}},
                {},
                kinds=("conv", "conv"),
                shapes=((32, 1, 3, 3), (64, 32, 3, 3)),
            ),
            id="depthwise",
        ),
        pytest.param(pair(modules=(ModuleFacts("0", "Conv1D"),)), id="inputs-first"),
    ],
)
def test_layers_that_cannot_be_multiplied_out_are_silent(trace: Trace) -> None:
    assert not findings_of(LinearStack(), trace)


@pytest.mark.parametrize(("slope", "flagged"), [(1, True), (1.0, True), (0.2, False)])
def test_a_leaky_relu_of_slope_one_is_none(slope: float, flagged: bool) -> None:
    trace = pair("leaky_relu")
    operations = [
        replace(op, attributes={"slope": slope}) if op.kind == "leaky_relu" else op
        for op in trace.graph.operations
    ]
    trace = Trace(parameters=trace.parameters, graph=Graph(tuple(operations)), facts=trace.facts)

    found = findings_of(LinearStack(), trace)

    assert [f.message.endswith("a slope of 1 changes nothing") for f in found] == [True] * flagged


def test_an_output_that_the_loss_reads_too_is_one_of_its_own() -> None:
    flattened = Operation(4, "view", "", None, (1,), in_loss=True)

    assert not findings_of(LinearStack(), pair(extra=(flattened,)))


def test_a_softmax_of_the_loss_is_no_attention() -> None:
    trace = pair(behind="softmax")
    *layers, softmax = trace.graph

    assert not findings_of(LinearStack(), trace)
    assert findings_of(
        LinearStack(), trace.but(graph=Graph((*layers, replace(softmax, in_loss=True))))
    )
