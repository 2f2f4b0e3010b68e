"""GL608: outputs of one sample that depend on another's input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.batch_leakage import BatchLeakage
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import GraphFacts, LoopFacts, ModuleFacts, TensorFacts, Trace

SERIES = TensorFacts("input", (32, 10, 8), "float32")
FEATURES = TensorFacts("input", (32, 8), "float32")
LABELS = TensorFacts("target", (32,), "int64")
OUTPUT = TensorFacts("output", (32, 3), "float32")


def trace(
    leak: float = 0.3,
    order: float = 0.4,
    *extra: Operation,
    kinds: str = "linear relu",
    **facts: Any,
) -> Trace:
    settings: dict[str, Any] = {
        "inputs": (SERIES,), "targets": (LABELS,), "outputs": (OUTPUT,),
        "probes": {"batch-leakage": {"leak": leak, "order": order, "rows": 32, "module": "head"}},
    }  # fmt: skip
    return trace_of(operations=(*chain(*kinds.split()), *extra), **(settings | facts))


def shaped(**changes: Any) -> tuple[TensorFacts, ...]:
    return (TensorFacts("x", **{"shape": (32, 10), "dtype": "float32", **changes}),)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(), True, id="series"),
        pytest.param(trace(1e-4), False, id="exactly-at-the-limit"),
        pytest.param(trace(0.3, 1e-6), False, id="compared-whatever-the-order"),
        pytest.param(trace(inputs=shaped(dtype="int64")), True, id="tokens"),
        pytest.param(trace(inputs=shaped(shape=(32, 32, 8))), False, id="two-axes-of-that-length"),
        pytest.param(trace(targets=shaped(shape=(32, 10))), False, id="time-first"),
        pytest.param(trace(targets=shaped(shape=(32, 1))), True, id="one-number-each"),
        pytest.param(trace(outputs=shaped(shape=(32, 32))), False, id="scores-of-all-pairs"),
        pytest.param(trace(outputs=shaped(shape=(30, 3))), False, id="other-rows"),
        pytest.param(trace(inputs=()), False, id="no-inputs"),
        pytest.param(trace(targets=()), False, id="no-targets"),
        pytest.param(trace(outputs=()), False, id="no-outputs"),
        pytest.param(trace(synthesized=True), False, id="made-up"),
        pytest.param(trace(inputs=(FEATURES,)), False, id="features-or-one-sequence"),
        pytest.param(
            trace(inputs=(FEATURES,), kinds="linear transpose view"), True, id="features-reshaped"
        ),
        pytest.param(
            trace(inputs=(FEATURES,), kinds="linear view rnn"), False, id="one-long-sequence"
        ),
        pytest.param(
            trace(0.3, 0.4, Operation(2, "index", "IndexAddBackward0", shape=(32, 4))),
            False,
            id="nodes-of-a-graph",
        ),
        pytest.param(
            trace(0.3, 0.4, Operation(2, "matmul", "MmBackward0", shape=(32, 4))),
            False,
            id="adjacency",
        ),
        pytest.param(trace_of(), False, id="nothing"),
    ],
)
def test_leaks_count_where_rows_are_proven_to_be_samples(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(BatchLeakage(), observed)) is flagged


def test_the_message_says_where_and_how_much() -> None:
    (found,) = findings_of(BatchLeakage(), trace())

    assert found.severity is Severity.ERROR
    assert found.message == (
        "replacing one sample changes the outputs of the others by 0.3 of their size, first in "
        "head: samples of the batch are mixed"
    )


def around(kind: str, shape: tuple[int, ...], calls: int = 1, **options: bool) -> Trace:
    """A leak in a model with one module that looks along an axis."""
    module = ModuleFacts("m", kind, calls=calls, input_shape=shape, options=options)
    return trace(modules=[module])


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(around("LSTM", (1, 32, 16), batch_first=True), False, id="one-batch-of-rows"),
        pytest.param(around("GRU", (32, 1, 16), batch_first=False), False, id="rows-are-time"),
        pytest.param(around("RNN", (32, 16)), False, id="unbatched"),
        pytest.param(around("Conv1d", (1, 16, 32)), False, id="convolved"),
        pytest.param(around("LSTM", (32, 10, 16), batch_first=False), True, id="batch-first"),
        pytest.param(around("LSTM", (32, 1, 16), batch_first=True), True, id="one-step-each"),
        pytest.param(around("RNN", (10, 16)), True, id="given-something-else"),
        pytest.param(around("Linear", (1, 32, 16)), True, id="looks-along-nothing"),
    ],
)
def test_rows_that_are_one_sequence_are_no_samples(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(BatchLeakage(), observed)) is flagged


def test_a_loop_over_rows_and_constant_matrices_are_by_design() -> None:
    loop = Operation(2, "concat", "StackBackward0", inputs=(0,) * 32, shape=(32, 4))
    mixing = Operation(2, "matmul", "BmmBackward0", missing=1, shape=(1, 32, 80))
    attention = Operation(2, "matmul", "BmmBackward0", inputs=(0, 1), shape=(32, 4, 10, 10))

    assert not findings_of(BatchLeakage(), trace(0.3, 0.4, loop))
    assert not findings_of(BatchLeakage(), trace(0.3, 0.4, mixing))
    assert findings_of(BatchLeakage(), trace(0.3, 0.4, attention))


def test_features_that_one_module_meets_again_are_a_sequence() -> None:
    cell = ModuleFacts("cell", "Linear", calls=32)
    facts: dict[str, Any] = {"inputs": (FEATURES,), "kinds": "linear view"}

    assert findings_of(BatchLeakage(), trace(**facts))
    assert not findings_of(BatchLeakage(), trace(modules=[cell], **facts))


def test_experts_serve_who_comes_first() -> None:
    observed = trace(modules=[ModuleFacts("layers.0.moe", "TopTwo")])

    assert not findings_of(BatchLeakage(), observed)


def attends(
    *shapes: tuple[int, ...],
    order: float = 1e-7,
    batch_first: bool = False,
    module: str = "0.attention",
    **facts: Any,
) -> Trace:
    """Attention that returns the same whatever the order of the samples."""
    modules = [
        ModuleFacts(f"{i}.attention", "MultiheadAttention", calls=1, input_shape=shape,
                    options={"batch_first": batch_first})
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    seen = {"leak": 0.3, "order": order, "rows": 32, "module": module}
    return trace(modules=modules, probes={"batch-leakage": seen}, **facts)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(attends((32, 10, 8)), True, id="batch-first-forgotten"),
        pytest.param(attends((32, 10, 8), (32, 10, 8)), True, id="in-every-layer"),
        pytest.param(attends((32, 10, 8), (10, 32, 8)), False, id="over-both-axes-in-turn"),
        pytest.param(attends((32, 10, 8), batch_first=True), False, id="batch-first"),
        pytest.param(attends((32, 1, 8)), False, id="over-samples-on-purpose"),
        pytest.param(attends((32, 8)), False, id="unbatched"),
        pytest.param(attends(()), False, id="given-we-do-not-know-what"),
        pytest.param(attends((32, 10, 8), module="norm"), False, id="statistics-of-the-batch"),
        pytest.param(
            attends((32, 10, 8), inputs=(FEATURES,), kinds="linear view"), False, id="features"
        ),
        pytest.param(attends((32, 10, 8), targets=shaped(shape=(32, 10))), False, id="time-first"),
        pytest.param(attends(), False, id="written-by-hand"),
    ],
)
def test_attention_over_samples_counts_where_it_is_a_forgotten_option(
    observed: Trace, flagged: bool
) -> None:
    assert bool(findings_of(BatchLeakage(), observed)) is flagged


def test_a_forgotten_batch_first_is_a_warning_that_says_so() -> None:
    (found,) = findings_of(BatchLeakage(), attends((32, 10, 8)))

    assert found.severity is Severity.WARNING
    assert found.module == "0.attention"
    assert found.message == (
        "attention without batch_first is given 32 × 10 × 8 and attends over the 32 samples: "
        "replacing one changes the outputs of the others by 0.3 of their size"
    )


def test_what_the_loss_joins_says_nothing_of_the_model() -> None:
    """A contrastive loss compares all rows, or takes the softmax of classes."""
    table = Operation(2, "matmul", "MmBackward0", shape=(32, 32), in_loss=True)
    classes = Operation(3, "softmax", "SoftmaxBackward0", shape=(32, 3), in_loss=True)

    assert findings_of(BatchLeakage(), trace(0.3, 0.4, table))
    assert findings_of(
        BatchLeakage(), trace(0.3, 0.4, classes, inputs=(FEATURES,), kinds="linear transpose view")
    )


def watched(kind: str, shape: tuple[int, ...], *, first: bool = False, **facts: Any) -> Trace:
    """A loop around a model with one layer that looks along an axis; no sample was replaced."""
    layer = ModuleFacts("look", kind, calls=1, input_shape=shape, options={"batch_first": first})
    settings = {"inputs": follow(0.1), "probes": {}, "loop": LoopFacts(steps=9)}
    return trace(modules=(layer,), **(settings | facts))


def follow(alike: float | None) -> tuple[TensorFacts, ...]:
    """Series of which one is as like the next as this."""
    return (replace(SERIES, neighbors=alike),)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(watched("LSTM", (32, 10, 8)), True, id="recurrent"),
        pytest.param(watched("MultiheadAttention", (32, 10, 8)), True, id="attention"),
        pytest.param(watched("GRU", (32, 10, 8), first=True), False, id="batch-first"),
        pytest.param(watched("LSTM", (10, 32, 8)), False, id="transposed"),
        pytest.param(watched("LSTM", (32, 1, 8)), False, id="one-sentence"),
        pytest.param(watched("LSTM", (32, 8)), False, id="one-sequence"),
        pytest.param(watched("LSTM", (32, 32, 8)), False, id="as-many-steps-as-samples"),
        pytest.param(
            watched("LSTM", (32, 10, 8), targets=shaped(shape=(32, 10))), False, id="time-first"
        ),
        pytest.param(watched("Linear", (32, 10, 8)), False, id="looks-along-nothing"),
        pytest.param(watched("GRU", (32, 10, 8), inputs=follow(0.3)), True, id="hardly-alike"),
        pytest.param(watched("GRU", (32, 10, 8), inputs=follow(0.31)), False, id="frames"),
        pytest.param(watched("GRU", (32, 10, 8), inputs=follow(None)), False, id="not-compared"),
        pytest.param(watched("GRU", (32, 10, 8), inputs=shaped(dtype="int64")), True, id="tokens"),
    ],
)
def test_in_a_loop_layers_that_run_over_the_batch_are_told_by_their_input(
    observed: Trace, flagged: bool
) -> None:
    found = findings_of(BatchLeakage(), observed)

    assert [f.severity for f in found] == [Severity.WARNING] * flagged
    assert all("over the 32 samples" in f.message for f in found)


def test_without_a_loop_single_samples_have_to_be_replaced() -> None:
    assert BatchLeakage().skip_reason(trace_of()) == "single samples of the batch were not replaced"


def test_a_batch_without_rows_holds_no_samples() -> None:
    empty = {
        "inputs": shaped(shape=(0, 10), dtype="int64"),
        "targets": shaped(shape=(0,)),
        "outputs": shaped(shape=(0, 3)),
    }

    assert not findings_of(BatchLeakage(), watched("Linear", (0, 10, 8), **empty))


def test_what_the_loss_joins_is_no_step_of_a_recurrent_layer() -> None:
    layer = ModuleFacts(
        "m", "LSTM", calls=1, input_shape=(32, 10, 8), options={"batch_first": True}
    )
    table = Operation(2, "matmul", "MmBackward0", shape=(32, 32), in_loss=True)
    joined = Operation(2, "concat", "StackBackward0", "m", (0,) * 32, shape=(32, 4))

    assert findings_of(BatchLeakage(), trace(0.3, 0.4, table, modules=[layer]))
    assert not findings_of(BatchLeakage(), trace(0.3, 0.4, joined, modules=[layer]))


@pytest.mark.parametrize(
    "shape",
    [(), (10, 32, 8), (12, 5, 8)],
    ids=["given-we-do-not-know-what", "over-both-axes-in-turn", "over-something-else"],
)
def test_in_a_loop_all_layers_have_to_run_over_the_batch(shape: tuple[int, ...]) -> None:
    first, second = (
        ModuleFacts(path, "LSTM", calls=1, input_shape=given, options={"batch_first": False})
        for path, given in (("a", (32, 10, 8)), ("b", shape))
    )

    def observed(*modules: ModuleFacts) -> Trace:
        tokens = shaped(dtype="int64")
        return trace(modules=modules, probes={}, loop=LoopFacts(steps=9), inputs=tokens)

    assert findings_of(BatchLeakage(), observed(first))
    assert not findings_of(BatchLeakage(), observed(first, second))


def unrolled(
    kind: str = "GRU", shape: tuple[int, ...] = (32, 10, 8), alike: float = 0.1, order: float = 0.4
) -> Trace:
    """A recurrent layer on a CPU: its graph joins as many steps as there are samples."""
    layer = ModuleFacts("look", kind, calls=1, input_shape=shape, options={"batch_first": False})
    steps = Operation(2, "concat", "StackBackward0", "look", (0,) * 32, shape=(32, 10, 4))
    return trace(0.3, order, steps, modules=(layer,), inputs=follow(alike))


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(unrolled(), True, id="over-the-batch"),
        pytest.param(unrolled(alike=0.8), False, id="over-frames"),
        pytest.param(unrolled(shape=(32, 1, 8)), False, id="over-one-sentence"),
        pytest.param(unrolled(shape=(10, 32, 8)), False, id="over-what-the-shape-does-not-tell"),
        pytest.param(unrolled("GRUCell", (32, 8)), False, id="a-loop-by-hand"),
        pytest.param(unrolled(order=0.0), False, id="whatever-the-order"),
    ],
)
def test_a_layer_that_runs_over_the_batch_is_told_from_a_loop(
    observed: Trace, flagged: bool
) -> None:
    found = findings_of(BatchLeakage(), observed)

    assert [f.severity for f in found] == [Severity.WARNING] * flagged
    assert all(
        f.message.endswith("replacing one changes the others' outputs by 0.3") for f in found
    )


def test_a_leak_beside_a_recurrent_layer_that_is_well_is_told() -> None:
    layer = ModuleFacts("look", "GRU", calls=1, input_shape=(32, 10, 8),
                        options={"batch_first": True})  # fmt: skip
    (found,) = findings_of(BatchLeakage(), trace(modules=(layer,)))

    assert found.severity is Severity.ERROR


def normalized(
    *,
    dims: tuple[int, ...] = (0,),
    kind: str = "linalg_vector_norm",
    shape: tuple[int, ...] = (32, 16),
    divided: str = "div",
    what: int = 0,
    in_loss: bool = False,
    leak: float = 0.3,
    order: float = 0.0,
    sources: tuple[int, ...] = (0,),
    targets: tuple[TensorFacts, ...] = (LABELS,),
) -> Trace:
    """Features over their norm along `dims`."""
    operations = (
        Operation(0, "linear", "", "body", shape=shape, missing=1),
        Operation(1, "linear", "", "other", shape=shape, missing=1),
        Operation(2, kind, "", None, sources, shape=(1, 16), attributes={"dims": dims},
                  in_loss=in_loss),
        Operation(3, "clamp", "", None, (2,), shape=(1, 16)),
        Operation(4, "expand", "", None, (3,), shape=shape),
        Operation(5, divided, "", None, (what, 4), shape=shape),
    )  # fmt: skip
    seen = {"leak": leak, "order": order, "rows": 32, "module": "head"}
    return trace_of(
        operations=operations, inputs=(SERIES,), targets=targets, outputs=(OUTPUT,),
        probes={"batch-leakage": seen},
    )  # fmt: skip


def test_features_divided_by_their_norm_over_the_batch_are_a_warning() -> None:
    (found,) = findings_of(BatchLeakage(), normalized())

    assert found.severity is Severity.WARNING
    assert found.message == (
        "features are divided by their norm over the 32 samples of the batch: replacing one "
        "changes the outputs of the others by 0.3 of their size"
    )
    assert findings_of(BatchLeakage(), normalized(kind="norm"))


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(normalized(dims=(1,)), id="over-the-features"),
        pytest.param(normalized(dims=(0, 1)), id="over-all"),
        pytest.param(normalized(kind="std"), id="statistics-of-the-batch"),
        pytest.param(normalized(shape=(16, 32)), id="other-rows"),
        pytest.param(normalized(shape=(32,)), id="one-number-each"),
        pytest.param(normalized(divided="mul"), id="a-weight"),
        pytest.param(normalized(what=1), id="another-signal-s-norm"),
        pytest.param(normalized(in_loss=True), id="in-the-loss"),
        pytest.param(normalized(leak=0.0), id="no-leak"),
        pytest.param(normalized(targets=()), id="rows-may-be-nodes"),
        pytest.param(normalized(sources=()), id="norm-of-the-data"),
    ],
)
def test_norms_over_something_else_are_silent(observed: Trace) -> None:
    assert not findings_of(BatchLeakage(), observed)


def test_two_such_norms_are_told_once() -> None:
    seen = normalized()
    twice = [replace(op, id=op.id + 6, inputs=tuple(i + 6 for i in op.inputs)) for op in seen.graph]

    both = seen.but(graph=Graph((*seen.graph.operations, *twice)))

    assert len(findings_of(BatchLeakage(), both)) == 1


def in_a_loop(*operations: Operation, targets: Any = (LABELS,), size: int | None = 32) -> Trace:
    return trace_of(
        operations=operations, inputs=(SERIES,), targets=targets, outputs=(OUTPUT,),
        batch_size=size, loop=LoopFacts(steps=40),
    )  # fmt: skip


def view(
    number: int, before: tuple[int, ...], after: tuple[int, ...], *inputs: int, loss: bool = False
) -> Operation:
    return Operation(
        number, "view", "ViewBackward0", None, inputs, shape=after, in_loss=loss,
        attributes={"input_shape": before},
    )  # fmt: skip


FIRST = Operation(0, "conv", "", "body", shape=(32, 16, 4, 8), missing=1)
MOVED = ((32, 16, 4, 8), (8, 32, 64))


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(in_a_loop(FIRST, view(1, *MOVED, 0)), True, id="columns-to-the-front"),
        pytest.param(
            in_a_loop(FIRST, view(1, (4, 16, 32, 8), (8, 32, 64), 0)), False, id="no-samples-first"
        ),
        pytest.param(
            in_a_loop(FIRST, view(1, (32, 16, 32, 4), (128, 32, 16), 0)), False, id="two-such-axes"
        ),
        pytest.param(
            in_a_loop(FIRST, view(1, (32, 16, 128), (64, 32, 32), 0)), False, id="two-behind-it"
        ),
        pytest.param(
            in_a_loop(FIRST, view(1, (32, 512), (1, 32, 512), 0)), False, id="one-step-of-time"
        ),
        pytest.param(in_a_loop(FIRST, view(1, (32, 512), (8, 64, 32), 0)), False, id="elsewhere"),
        pytest.param(
            in_a_loop(FIRST, view(1, *MOVED, 0), view(2, (8, 32, 64), (32, 512), 1)), False,
            id="put-back-again",
        ),
        pytest.param(
            in_a_loop(FIRST, view(1, *MOVED, 0), view(2, (8, 32, 64), (256, 64), 1)), True,
            id="rows-for-a-layer",
        ),
        pytest.param(in_a_loop(FIRST, view(1, *MOVED, 0, loss=True)), False, id="in-the-loss"),
        pytest.param(in_a_loop(FIRST, view(1, *MOVED, 0), targets=()), False, id="no-targets"),
        pytest.param(in_a_loop(FIRST, view(1, *MOVED, 0), size=None), False, id="no-batch"),
    ],
)  # fmt: skip
def test_a_view_that_moves_the_batch_is_a_warning_in_a_loop(observed: Trace, flagged: bool) -> None:
    found = findings_of(BatchLeakage(), observed)

    assert [f.severity for f in found] == ([Severity.WARNING] if flagged else [])
    if flagged:
        assert found[0].message == (
            "a view turns 32 × 16 × 4 × 8 into 8 × 32 × 64: axis 1 has the length of the batch, "
            "and no entry of it is one of the 32 samples"
        )


def joined(
    *, dim: int = 0, sides: tuple[int, ...] = (0, 1), kind: str = "concat",
    first: tuple[int, ...] = (32, 16), before: tuple[int, ...] = (64, 16),
    after: tuple[int, ...] = (32, 32), reads: tuple[int, ...] = (2,),
) -> Trace:  # fmt: skip
    return in_a_loop(
        Operation(0, "linear", "", "a", shape=first, missing=1),
        Operation(1, "linear", "", "b", shape=(32, 16), missing=1),
        Operation(2, kind, "CatBackward0", None, sides, shape=before, attributes={"dim": dim}),
        view(3, before, after, *reads),
    )


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(joined(), True, id="rows-of-two-samples"),
        pytest.param(joined(after=(2, 16, 32)), False, id="taken-apart-rightly"),
        pytest.param(joined(dim=1), False, id="along-the-features"),
        pytest.param(joined(kind="add"), False, id="added"),
        pytest.param(joined(sides=(0,), before=(32, 16)), False, id="one-alone"),
        pytest.param(joined(first=(16, 16)), False, id="halves"),
        pytest.param(joined(first=(32, 32)), False, id="two-such-axes"),
        pytest.param(joined(before=(2, 32, 16)), False, id="stacked"),
        pytest.param(joined(reads=()), False, id="of-the-data"),
    ],
)
def test_a_view_of_what_was_joined_along_the_batch_is_a_warning_in_a_loop(
    observed: Trace, flagged: bool
) -> None:
    found = findings_of(BatchLeakage(), observed)

    assert [f.severity for f in found] == ([Severity.WARNING] if flagged else [])
    if flagged:
        assert "each of its rows holds 2 samples of one input" in found[0].message


def test_the_first_such_view_is_told_and_no_more() -> None:
    twice = in_a_loop(FIRST, view(1, *MOVED, 0), view(2, *MOVED, 0))

    assert len(list(BatchLeakage().check(twice))) == 1


def test_a_batch_of_one_sample_is_not_dealt_out() -> None:
    one = [replace(t, shape=(1, *t.shape[1:])) for t in (SERIES, LABELS, OUTPUT)]
    seen = trace_of(
        operations=[view(0, (1, 512), (8, 1, 64))], batch_size=1, loop=LoopFacts(steps=40),
        inputs=one[:1], targets=one[1:2], outputs=one[2:],
    )  # fmt: skip

    assert not findings_of(BatchLeakage(), seen)


def test_the_graph_of_a_later_phase_is_judged_by_its_own_data() -> None:
    seen = in_a_loop(FIRST, view(1, *MOVED, 0))
    given = (seen.facts.inputs, seen.facts.targets, seen.facts.outputs)
    another = seen.but(
        graph=Graph((FIRST,)),
        facts=replace(
            seen.facts, targets=(), later=(GraphFacts(40, seen.graph.operations, *given),)
        ),
    )
    unlabelled = replace(
        another.facts, later=(GraphFacts(40, seen.graph.operations, given[0], (), given[2]),)
    )

    assert len(findings_of(BatchLeakage(), another)) == 1
    assert not findings_of(BatchLeakage(), another.but(facts=unlabelled))


def test_two_graphs_that_mix_samples_are_told_once() -> None:
    seen = in_a_loop(FIRST, view(1, *MOVED, 0))
    given = (seen.facts.inputs, seen.facts.targets, seen.facts.outputs)
    both = replace(seen.facts, later=(GraphFacts(40, seen.graph.operations, *given),))

    assert len(findings_of(BatchLeakage(), seen.but(facts=both))) == 1
