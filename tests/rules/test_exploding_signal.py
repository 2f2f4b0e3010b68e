"""GL104: activations that grow with depth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.exploding_signal import ExplodingSignal
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import Trace


def deep(values: list[float], between: str = "relu", **facts: object) -> Trace:
    """A chain of linear layers whose outputs have these RMS values at step 0."""
    kinds = ["linear", between] * len(values)
    seen = [
        observe("activation_rms", str(2 * i), [v, v, v], depth=i, step=0)
        for i, v in enumerate(values)
    ]
    return trace_of(*seen, operations=chain(*kinds), **facts)


def stairs(factor: float) -> list[float]:
    """Four layers in twelve that change the signal."""
    return [factor ** (i // 3) for i in range(13)]


def growing(factor: float, layers: int) -> list[float]:
    return [factor**i for i in range(layers)]


@pytest.mark.parametrize(
    ("values", "severity"),
    [
        pytest.param(growing(2.236, 50), Severity.ERROR, id="figure-7.7-sigma2-0.1"),
        pytest.param([*growing(7.07, 45), math.inf, math.nan], Severity.ERROR, id="sigma2-1"),
        pytest.param(growing(2.0, 9), Severity.WARNING, id="two-decades-without-one-layer"),
        pytest.param([*growing(2.0, 9), math.inf], Severity.ERROR, id="overflows-after-growth"),
        pytest.param(growing(10.0, 4), None, id="too-few-layers"),
        pytest.param(growing(100.0, 4), None, id="few-layers-that-change-much"),
        pytest.param([1.0, 1.0, 1.0, 1.0, 1.0, 1e6], None, id="single-large-layer"),
        pytest.param(stairs(10.0), None, id="one-layer-in-three"),
        pytest.param([1.0] * 6 + [math.nan], None, id="nan-without-growth"),
        pytest.param([math.nan] * 8, None, id="nan-throughout"),
        pytest.param([1.0] * 50, None, id="level"),
        pytest.param(growing(0.5, 50), None, id="falls"),
        pytest.param([], None, id="nothing-observed"),
    ],
)
def test_flags_a_geometric_growth_shared_by_many_layers(
    values: list[float], severity: Severity | None
) -> None:
    found = findings_of(ExplodingSignal(), deep(values))

    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_exactly_at_the_limit_is_silent() -> None:
    rule = ExplodingSignal(min_layers=4)

    assert not findings_of(rule, deep([1.0, 1e1, 1e2, 1e3]))
    assert findings_of(rule, deep([1.0, 1e1, 1e2, 1.1e3, 1.2e4]))


def test_only_ratios_count_not_the_inputs_scale() -> None:
    assert not findings_of(ExplodingSignal(), deep([255.0] * 20))
    assert findings_of(ExplodingSignal(), deep([255.0 * v for v in growing(2.0, 20)]))


@pytest.mark.parametrize("between", ["layer_norm", "batch_norm", "add", "mul", "softmax", "custom"])
def test_a_normalization_a_join_or_the_unknown_ends_the_chain(between: str) -> None:
    assert not findings_of(ExplodingSignal(), deep(growing(2.0, 30), between))


def test_loaded_weights_are_not_judged() -> None:
    assert not findings_of(ExplodingSignal(), deep(growing(2.0, 30), pretrained=True))


def test_a_single_bad_batch_is_outvoted() -> None:
    values = growing(2.0, 30)
    seen = [
        observe("activation_rms", str(2 * i), [1.0, v, 1.0], depth=i, step=0)
        for i, v in enumerate(values)
    ]
    trace = trace_of(*seen, operations=chain(*["linear", "relu"] * 30))

    assert not findings_of(ExplodingSignal(), trace)


def test_training_steps_do_not_count() -> None:
    seen = [
        observe("activation_rms", str(2 * i), [v], step=1) for i, v in enumerate(growing(2.0, 30))
    ]
    trace = trace_of(*seen, operations=chain(*["linear", "relu"] * 30))

    assert not findings_of(ExplodingSignal(), trace)


def test_the_message_names_the_growth_and_the_layers() -> None:
    (found,) = findings_of(ExplodingSignal(), deep([*growing(10.0, 8), math.inf]))

    assert found.message == (
        "activation RMS grows from 1 to 1e+07 over 8 weight layers, then overflows: 10 times a "
        "layer (limit 1000 over all)"
    )
    assert found.module == "0"
    assert found.modules == tuple(str(2 * i) for i in range(8))


def rounds(
    *, join: str = "add", depth: int = 6, skip: bool = False, data: bool = False
) -> tuple[Operation, ...]:
    """Rounds in which each layer's messages are summed and joined with what it keeps itself.

    With `skip` its input is joined instead of what a layer makes of it, with `data` what needs
    no gradient.
    """
    made: list[Operation] = []

    def add(kind: str, *inputs: int, missing: int = 0) -> int:
        i = len(made)
        path = f"{i}" if kind == "linear" else ""
        made.append(
            Operation(
                id=i,
                kind=kind,
                name=kind,
                module=path,
                site=path,
                inputs=inputs,
                parameters=(f"{i}.weight",) if path else (),
                missing=missing,
            )
        )
        return i

    before = add("linear", missing=1)
    for _ in range(depth):
        message = add("index", add("linear", before), missing=1)
        own = before if skip else add("linear", before)
        if join == "index":
            before = add("index", own, message)
        else:
            before = add(join, *((own, message) if not data else (message,)), missing=int(data))
        before = add("relu", before)
    return tuple(made)


def grown(operations: tuple[Operation, ...], factor: float = 4.0) -> Trace:
    """The trace of a model in which each weight layer's output is larger than the last one's."""
    level: dict[int, float] = {}
    seen = []
    for op in operations:
        level[op.id] = max((level[i] for i in op.inputs), default=1 / factor)
        if op.kind == "linear":
            level[op.id] *= factor
            seen.append(observe("activation_rms", op.site, [level[op.id]], step=0))
    return trace_of(*seen, operations=operations)


@pytest.mark.parametrize("join", ["add", "concat", "index"])
def test_sums_over_neighbors_and_of_parallel_layers_do_not_end_a_chain(join: str) -> None:
    (found,) = findings_of(ExplodingSignal(), grown(rounds(join=join)))

    assert found.message == (
        "activation RMS grows from 1 to 4.1e+03 over 7 weight layers: 4 times a layer (limit 1000 "
        "over all)"
    )
    assert found.help.startswith("Average what is summed")


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param(rounds(skip=True), id="a-residual-add"),
        pytest.param(rounds(skip=True, join="concat"), id="a-dense-block"),
        pytest.param(rounds(skip=True, join="index"), id="added-to-what-is-handed-on"),
        pytest.param(rounds(data=True), id="data-that-are-added"),
        pytest.param(rounds(join="mul"), id="a-gate"),
    ],
)
def test_a_sum_of_different_depths_ends_a_chain(operations: tuple[Operation, ...]) -> None:
    assert not findings_of(ExplodingSignal(), grown(operations))


def test_data_joined_to_two_parallel_layers_end_a_chain() -> None:
    changed = [
        replace(op, missing=1) if op.kind == "add" and len(op.inputs) == 2 else op
        for op in rounds()
    ]

    assert not findings_of(ExplodingSignal(), grown(tuple(changed)))


def test_a_growth_that_sums_have_no_part_in_is_advised_on_by_its_initialization() -> None:
    (found,) = findings_of(ExplodingSignal(), deep(growing(4.0, 8)))

    assert found.help.startswith("Initialize with the gain")
