"""GL110: activations that carry a signal over few layers, in many layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.activation_for_depth import ActivationForDepth
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import Trace


def stack(layers: int, *kinds: str, **facts: object) -> Trace:
    """So many times a linear layer and `kinds`, then a head and a loss."""
    return trace_of(operations=chain(*(("linear", *kinds) * layers), "linear", "mse"), **facts)


def flagged(trace: Trace, **options: int) -> bool:
    return bool(findings_of(ActivationForDepth(**options), trace))


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "tanh", "softsign"])
def test_more_than_ten_layers_are_noted_and_ten_are_not(kind: str) -> None:
    assert flagged(stack(11, kind))
    assert not flagged(stack(10, kind))


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("gelu",), id="gelu"),
        pytest.param(("selu",), id="self-normalizing"),
        pytest.param(("layer_norm", "relu"), id="normalized"),
        pytest.param(("relu", "batch_norm"), id="normalized-behind"),
        pytest.param((), id="linear"),
    ],
)
def test_other_stacks_may_be_deep(kinds: tuple[str, ...]) -> None:
    assert not flagged(stack(30, *kinds))


def test_residual_connections_end_a_chain() -> None:
    operations: list[Operation] = []
    for i in range(0, 90, 3):
        before = (i - 1,) if i else ()
        operations += [
            Operation(i, "linear", "", f"{i}", before, (f"{i}.weight",), missing=int(not i)),
            Operation(i + 1, "relu", "", f"{i}", (i,)),
            Operation(i + 2, "add" if i else "clone", "", "", (i + 1, *before)),
        ]

    assert not flagged(trace_of(operations=operations))


def test_a_weight_that_is_used_again_is_one_layer() -> None:
    operations = [
        replace(op, parameters=("cell.weight",)) if op.kind == "linear" else op
        for op in chain(*(("linear", "tanh") * 30), "mse")
    ]

    assert not flagged(trace_of(operations=operations))


def test_kinds_are_counted_together() -> None:
    mixed = chain(*(("linear", "relu") * 6), *(("linear", "tanh") * 5), "linear", "mse")

    (found,) = findings_of(ActivationForDepth(), trace_of(operations=mixed))

    assert found.evidence["kinds"] == {"relu": 6, "tanh": 5}
    assert "6 ReLU and 5 tanh layers" in found.message


def test_loaded_weights_and_an_empty_graph_are_silent() -> None:
    assert not flagged(stack(30, "relu", pretrained=True))
    assert not flagged(trace_of())


def test_the_limit_is_an_option() -> None:
    assert flagged(stack(4, "relu"), max_layers=3)


def test_it_is_a_note_that_names_both_ends() -> None:
    (found,) = findings_of(ActivationForDepth(), stack(12, "sigmoid"))

    assert found.severity is Severity.NOTE
    assert found.message == (
        "12 sigmoid layers from 0 to 22 without normalization or residual connection (limit 10)"
    )
    assert found.module == "0"
    assert len(found.modules) == 12


def test_a_run_without_graph_is_skipped() -> None:
    assert ActivationForDepth().skip_reason(trace_of()) == "no graph was observed"
