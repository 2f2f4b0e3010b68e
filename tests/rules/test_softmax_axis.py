"""GL113: softmax over the batch, or over a single entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.softmax_axis import SoftmaxAxis
from gradlint.testing import findings_of, trace_of
from gradlint.trace import (
    GraphFacts,
    LoopFacts,
    LossFacts,
    ModuleFacts,
    ParameterFacts,
    TensorFacts,
    Trace,
)

LABELS = TensorFacts("target", (32,), "int64")
FEATURES = TensorFacts("input", (32, 8), "float32")
OUTPUT = TensorFacts("output", (32, 4), "float32")


def model(
    shape: tuple[int, ...],
    axis: int,
    *,
    source: str = "linear",
    units: int | None = None,
    extra: tuple[Operation, ...] = (),
    in_loss: bool = False,
    data: bool = True,
    read_by: Operation | None = None,
    **facts: Any,
) -> Trace:
    """A softmax over `axis` of a tensor of this shape, fed by `source`."""
    operations = (
        Operation(0, source, "", "fc", missing=int(data), parameters=("fc.weight",), shape=shape),
        Operation(1, "softmax", "", "s", (0,), shape=shape, attributes={"dim": axis},
                  in_loss=in_loss),
        read_by or Operation(2, "matmul", "", "", (1,)),
    )  # fmt: skip
    settings: dict[str, Any] = {
        "inputs": (FEATURES,), "targets": (LABELS,), "outputs": (OUTPUT,), "batch_size": 32
    }  # fmt: skip
    return trace_of(
        operations=(*operations, *extra),
        parameters=[ParameterFacts("fc.weight", (units or shape[-1], 16))],
        **(settings | facts),
    )


def severities(trace: Trace) -> list[Severity]:
    return [found.severity for found in findings_of(SoftmaxAxis(), trace)]


def test_a_softmax_over_the_batch_is_an_error() -> None:
    assert severities(model((32, 4), 0)) == [Severity.ERROR]


def test_a_softmax_over_classes_is_none() -> None:
    assert severities(model((32, 4), 1)) == []


SEQUENCE = TensorFacts("input", (32, 20), "int64")
TOKENS = TensorFacts("target", (32, 20), "int64")
ONE = TensorFacts("one", (1, 8), "float32")
ONE_LABEL = TensorFacts("target", (1,), "int64")
PIXELS = TensorFacts("target", (32, 8), "float32")


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(model((32, 4), 0, targets=(PIXELS,)), [Severity.WARNING], id="autoencoder"),
        pytest.param(
            model((32, 4, 9), 0, inputs=(SEQUENCE,), targets=(TOKENS,)), [], id="time-first-tokens"
        ),
        pytest.param(model((30, 4), 0), [], id="nodes-or-instances"),
        pytest.param(model((32, 32), 0), [Severity.ERROR], id="as-many-features-as-samples"),
        pytest.param(model((32, 32), 0, source="transpose"), [], id="axes-swapped"),
        pytest.param(model((32, 32, 4), 0), [], id="two-axes-of-that-length"),
        pytest.param(model((32,), 0), [], id="a-vector"),
        pytest.param(
            model((1, 4), 0, inputs=(ONE,), targets=(ONE_LABEL,), outputs=(ONE,)),
            [],
            id="one-sample",
        ),
        pytest.param(
            model((32, 4), 0, inputs=(TensorFacts("input", (32,), "int64"),)),
            [],
            id="one-label-a-token-of-one-sequence",
        ),
        pytest.param(
            model((32, 4), 0, targets=(TensorFacts("target", (32, 5), "float32"),)),
            [Severity.ERROR],
            id="several-labels-a-sample",
        ),
        pytest.param(model((32, 4), 0, inputs=()), [], id="no-inputs"),
        pytest.param(model((32, 4), 0, outputs=()), [], id="no-outputs"),
        pytest.param(model((32, 4), 0, targets=()), [], id="no-targets"),
        pytest.param(
            model((32, 4), 0, targets=(TensorFacts("target", (1,), "int64"),)),
            [],
            id="one-target-a-bag",
        ),
        pytest.param(model((32, 4), 0, synthesized=True), [], id="made-up-batch"),
        pytest.param(model((32, 4), 0, in_loss=True), [], id="contrastive-loss"),
        pytest.param(model((32, 4), 0, data=False), [], id="of-parameters-alone"),
        pytest.param(model((32, 4), 7), [], id="axis-out-of-range"),
        pytest.param(trace_of(), [], id="no-softmax"),
    ],
)
def test_over_the_batch_only_where_the_targets_prove_it(
    trace: Trace, expected: list[Severity]
) -> None:
    assert severities(trace) == expected


@pytest.mark.parametrize("source", [0, 1], ids=["same-scores", "result"])
def test_scores_normalized_over_another_axis_too_are_silent(source: int) -> None:
    """Sinkhorn and dual softmax."""
    other = Operation(3, "softmax", "", "", (source,), shape=(32, 4), attributes={"dim": 1})

    assert severities(model((32, 4), 0, extra=(other,))) == []


@pytest.mark.parametrize(
    ("name", "kind", "missing"), [("MmBackward0", "matmul", 1), ("ScatterAddBackward0", "index", 0)]
)
def test_nodes_of_one_graph_compete_by_design(name: str, kind: str, missing: int) -> None:
    other = Operation(3, kind, name, "gcn", (0,), missing=missing, shape=(32, 16))

    assert severities(model((32, 1), 0, extra=(other,))) == []


def test_a_softmax_over_the_one_unit_of_a_layer_is_an_error() -> None:
    assert severities(model((32, 10, 1), 2)) == [Severity.ERROR]
    assert severities(model((32, 10, 1), 1)) == []


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(
            model((32, 4, 1, 1), 3, source="matmul"), [Severity.WARNING], id="no-positions"
        ),
        pytest.param(
            model((32, 4, 1, 1), 3, source="matmul",
                  inputs=(TensorFacts("x", (32, 3, 8, 8), "float32"),)),
            [], id="small-images",
        ),
        pytest.param(
            model((32, 4, 1, 1), 3, source="matmul", inputs=(SEQUENCE,)), [], id="short-sequences"
        ),
        pytest.param(
            model((32, 4, 1, 1), 3, source="matmul", synthesized=True), [], id="made-up-batch"
        ),
    ],
)  # fmt: skip
def test_attention_to_one_position_is_a_warning_where_inputs_have_none(
    trace: Trace, expected: list[Severity]
) -> None:
    assert severities(trace) == expected


def test_an_unrolled_loop_may_begin_with_one_entry() -> None:
    later = Operation(3, "softmax", "", "s", (0,), shape=(32, 10, 2), attributes={"dim": 2})

    assert severities(model((32, 10, 1), 2, extra=(later,))) == []


def test_the_output_s_softmax_is_another_rule_s() -> None:
    loss = Operation(2, "nll", "", None, (1,), in_loss=True)

    assert severities(model((32, 1), 1, read_by=loss)) == []


def test_loaded_weights_do_not_excuse_a_wrong_axis() -> None:
    assert severities(model((32, 4), 0, pretrained=True)) == [Severity.ERROR]


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        (
            (32, 4),
            0,
            "softmax normalizes over axis 0, the batch of 32 samples (shape 32 × 4)",
        ),
        (
            (32, 10, 1),
            2,
            "softmax normalizes over axis 2, which holds one entry: its result is always 1 "
            "(shape 32 × 10 × 1)",
        ),
    ],
)
def test_the_message_names_the_axis(shape: tuple[int, ...], axis: int, message: str) -> None:
    (found,) = findings_of(SoftmaxAxis(), model(shape, axis))

    assert found.message == message
    assert found.module == "s"


def test_what_an_embedding_looks_up_is_data() -> None:
    operations = (
        Operation(0, "embedding", "", "embed", parameters=("embed.weight",), shape=(32, 20, 8)),
        Operation(1, "softmax", "", "s", (0,), shape=(32, 20, 8), attributes={"dim": 0}),
        Operation(2, "matmul", "", "", (1,)),
    )
    trace = trace_of(
        operations=operations, inputs=(SEQUENCE,), targets=(LABELS,), outputs=(OUTPUT,)
    )

    assert severities(trace) == [Severity.ERROR]


def test_a_model_without_softmax_is_skipped() -> None:
    trace = model((32, 4), 0, in_loss=True)

    assert SoftmaxAxis().skip_reason(trace) == "no softmax in the model's graph"


def test_a_softmax_of_the_loss_beside_one_of_the_model_is_silent() -> None:
    """Contrastive losses let the samples of a batch compete."""
    attention = Operation(3, "softmax", "", "a", (0,), shape=(32, 4), attributes={"dim": 1})
    trace = model((32, 4), 0, in_loss=True, source="embedding", extra=(attention,))
    apart = [o for o in trace.graph if o.id != 1] + [
        Operation(4, "linear", "", "q", missing=1, shape=(32, 32)),
        Operation(
            5, "softmax", "", None, (4,), shape=(32, 32), attributes={"dim": 0}, in_loss=True
        ),
    ]

    assert severities(trace.but(graph=Graph(tuple(o for o in apart if o.id != 2)))) == []


def test_an_unknown_axis_is_silent() -> None:
    unknown = Operation(3, "softmax", "", "s", (0,), shape=(32, 4))

    assert severities(model((32, 4), 1, extra=(unknown,))) == []


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param((Operation(2, "sum", "", None, (1,), in_loss=True),), id="summed"),
        pytest.param(
            (
                Operation(2, "view", "", "flat", (1,)),
                Operation(3, "nll", "", None, (2,), in_loss=True),
            ),
            id="reshaped-first",
        ),
    ],
)
def test_one_entry_that_goes_to_the_loss_is_another_rule_s(reads: tuple[Operation, ...]) -> None:
    assert severities(model((32, 1), 1, read_by=reads[0], extra=reads[1:])) == []


SQUARE = TensorFacts("input", (32, 32), "int64")
LOSS = LossFacts("cross_entropy", output=OUTPUT, target=LABELS)


def pooled(
    *between: Operation,
    into: str = "mul",
    dims: tuple[int, ...] | None = (1,),
    rank: tuple[int, ...] = (32, 32, 16),
    losses: tuple[LossFacts, ...] = (LOSS,),
    targets: tuple[TensorFacts, ...] = (LABELS,),
) -> Trace:
    """As many tokens as samples: embedded, scored, weighted over axis 0 and summed over one."""
    scored = len(between) + 1
    reduced = {} if dims is None else {"dims": dims}
    operations = (
        Operation(0, "embedding", "", "table", missing=1, shape=(32, 32, 16)),
        *between,
        Operation(scored, "view", "", "score", (scored - 1,), shape=(1024, 16)),
        Operation(scored + 1, "linear", "", "score", (scored,), shape=(1024, 1)),
        Operation(scored + 2, "view", "", "score", (scored + 1,), shape=(32, 32, 1)),
        Operation(scored + 3, "softmax", "", "", (scored + 2,), shape=(32, 32, 1),
                  attributes={"dim": 0}),
        Operation(scored + 4, into, "", "", (scored + 3, 0), shape=rank),
        Operation(scored + 5, "sum", "", "", (scored + 4,), shape=(32, 16), attributes=reduced),
        Operation(scored + 6, "linear", "", "head", (scored + 5,), shape=(32, 4)),
        Operation(scored + 7, "log_softmax", "", None, (scored + 6,), shape=(32, 4),
                  attributes={"dim": 1}, in_loss=True),
    )  # fmt: skip
    return trace_of(
        operations=operations,
        modules=[ModuleFacts("score", "Linear"), ModuleFacts("table", "Embedding")],
        inputs=(SQUARE,),
        targets=targets,
        outputs=(OUTPUT,),
        losses=losses,
    )


TURNED = Operation(1, "transpose", "", "", (0,), shape=(32, 32, 16))
SCALED = Operation(1, "parameter_mul", "", "", (0,), shape=(32, 32, 16))


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(pooled(), [Severity.ERROR], id="rows-stay-rows"),
        pytest.param(
            pooled(targets=(SQUARE,)), [Severity.ERROR], id="of-a-target-a-token-the-loss-takes-one"
        ),
        pytest.param(pooled(SCALED), [Severity.ERROR], id="scaled-on-the-way"),
        pytest.param(pooled(TURNED), [], id="axes-swapped-on-the-way"),
        pytest.param(pooled(dims=(0,)), [], id="pooled-over-axis-0"),
        pytest.param(pooled(dims=(0, 1)), [], id="pooled-over-both"),
        pytest.param(pooled(dims=None), [], id="pooled-over-an-unknown-axis"),
        pytest.param(pooled(into="matmul"), [], id="mixed-by-a-product"),
        pytest.param(pooled(rank=(8, 32, 32, 16)), [], id="broadcast-to-more-axes"),
        pytest.param(pooled(losses=()), [], id="no-loss-known"),
        pytest.param(pooled(losses=(LOSS, LOSS)), [], id="two-losses"),
        pytest.param(
            pooled(losses=(LossFacts("cross_entropy", output=OUTPUT),)), [], id="targets-unknown"
        ),
        pytest.param(
            pooled(losses=(LossFacts("cross_entropy", target=LABELS),)), [], id="outputs-unknown"
        ),
        pytest.param(
            pooled(losses=(LossFacts("mse", output=OUTPUT, target=OUTPUT),)), [], id="no-labels"
        ),
        pytest.param(
            pooled(losses=(LossFacts("mse", output=SQUARE, target=LABELS),)),
            [Severity.ERROR],
            id="another-loss",
        ),
        pytest.param(
            pooled(
                losses=(LossFacts("mse", output=TensorFacts("", (4, 32), "float32"),
                                  target=LABELS),)
            ),
            [],
            id="labels-of-another-axis",
        ),
    ],
)  # fmt: skip
def test_of_two_axes_of_one_length_the_first_is_followed(trace: Trace, expected: object) -> None:
    assert severities(trace) == expected


def test_what_the_loss_joins_says_nothing_of_the_model() -> None:
    joins = Operation(3, "matmul", "MmBackward0", None, (0,), missing=1, shape=(32, 16))

    assert severities(model((32, 4), 0, extra=(joins,))) == []
    assert severities(model((32, 4), 0, extra=(replace(joins, in_loss=True),))) == [Severity.ERROR]


def test_what_the_loss_does_with_the_rows_is_its_own() -> None:
    trace = pooled()
    last = max(trace.graph.by_id)
    loss = Operation(last + 1, "nll", "", None, (last,), in_loss=True)

    assert severities(trace.but(graph=Graph((*trace.graph, loss)))) == [Severity.ERROR]


def later(seen: Trace) -> Trace:
    """A loop that came to the graph of `seen` after another one's."""
    facts = GraphFacts(
        40, seen.graph.operations, seen.facts.inputs, seen.facts.targets, seen.facts.outputs,
        seen.facts.losses,
    )  # fmt: skip
    first = trace_of(
        operations=(Operation(0, "linear", "", "first", missing=1, shape=(16, 3)),),
        inputs=(ONE,), targets=(ONE_LABEL,), outputs=(ONE,), loop=LoopFacts(steps=80),
        later=(facts,),
    )  # fmt: skip
    return first.but(parameters=seen.parameters)


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(later(model((32, 4), 0)), [Severity.ERROR], id="over-the-batch"),
        pytest.param(later(model((32, 4), 1)), [], id="over-classes"),
        pytest.param(later(model((30, 4), 0)), [], id="instances"),
        pytest.param(later(model((32, 1), 1, units=1)), [Severity.ERROR], id="over-one"),
        pytest.param(later(model((32, 4), 0, targets=())), [], id="no-targets-of-that-step"),
    ],
)
def test_the_graph_of_a_later_phase_is_judged_by_its_own_data(
    trace: Trace, expected: list[Severity]
) -> None:
    assert SoftmaxAxis().skip_reason(trace) is None
    assert severities(trace) == expected


def test_a_softmax_in_both_graphs_is_told_once() -> None:
    seen = model((32, 4), 0)
    both = seen.but(facts=replace(seen.facts, later=later(seen).facts.later, loop=LoopFacts()))

    assert severities(both) == [Severity.ERROR]


def test_no_softmax_in_any_graph_is_nothing_to_judge() -> None:
    assert SoftmaxAxis().skip_reason(later(model((32, 4), 0, in_loss=True)))
