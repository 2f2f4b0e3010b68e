from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.rules.degenerate_normalization import DegenerateNormalization
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import Event, ModuleFacts, Trace


def norm(kind: str, shape: tuple[int, ...], *, training: bool = True, **options: object) -> Trace:
    module = ModuleFacts("norm", kind, 1, 1, training, options=options, input_shape=shape)
    return trace_of(modules=(module,))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        (norm("LayerNorm", (8, 1), normalized_shape=(1,)), True),
        (norm("LayerNorm", (8, 2), normalized_shape=(2,)), False),
        (norm("RMSNorm", (8, 1), normalized_shape=(1,)), True),
        (norm("InstanceNorm2d", (8, 4, 1, 1)), True),
        (norm("InstanceNorm2d", (8, 4, 1, 2)), False),
        (norm("InstanceNorm2d", (8, 4, 1, 1), training=False, track_running_stats=True), False),
        (norm("GroupNorm", (8, 4, 1, 1), num_groups=4), True),
        (norm("GroupNorm", (8, 4, 1, 1), num_groups=2), False),
        (norm("GroupNorm", (8, 4, 3, 3), num_groups=4), False),
        (norm("BatchNorm1d", (1, 4)), False),
        (trace_of(), False),
    ],
)
def test_values_per_statistic_are_counted(trace, flagged) -> None:
    found = findings_of(DegenerateNormalization(), trace)

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("spreads", "flagged"),
    [
        pytest.param([0.0] * 6, True, id="constant"),
        pytest.param([0.0] * 5, True, id="exactly-enough-steps"),
        pytest.param([0.0] * 4, False, id="too-few-steps"),
        pytest.param([0.0, *[1e-6] * 5], False, id="only-at-initialization"),
        pytest.param([0.0] * 5 + [0.1], False, id="it-varied-once"),
        pytest.param([], False, id="not-observed"),
    ],
)
def test_a_constant_input_is_an_error(spreads, flagged) -> None:
    trace = trace_of(
        observe("activation_std", "0", spreads, start=0), operations=chain("linear", "layer_norm")
    )

    assert bool(findings_of(DegenerateNormalization(), trace)) is flagged


def test_what_torch_raises_is_named() -> None:
    message = "Expected more than 1 spatial element when training, got input size [8, 4, 1, 1]"
    trace = trace_of(events=(Event("exception", module="norm", detail={"message": message}),))

    assert [f.module for f in findings_of(DegenerateNormalization(), trace)] == ["norm"]


def test_the_message_names_the_input() -> None:
    (found,) = findings_of(
        DegenerateNormalization(), norm("LayerNorm", (8, 1), normalized_shape=(1,))
    )

    assert found.message == (
        "LayerNorm normalizes over 1 value (input (8, 1)): its output does not vary"
    )


CONSTANT = observe("activation_std", "0", [0.0] * 6, start=0)
LINEAR, NORMALIZED = chain("linear", "layer_norm")


@pytest.mark.parametrize(
    "changes",
    [{"inputs": ()}, {"inputs": (0, 0)}, {"in_loss": True}],
    ids=["of-the-batch-itself", "by-a-learned-mean", "of-the-loss"],
)
def test_what_normalizes_something_else_is_silent(changes: dict[str, Any]) -> None:
    trace = trace_of(CONSTANT, operations=(LINEAR, replace(NORMALIZED, **changes)))

    assert findings_of(DegenerateNormalization(), trace) == ()


def test_what_is_said_of_the_shape_is_not_said_again_of_the_values() -> None:
    shape = norm("LayerNorm", (8, 1), normalized_shape=(1,))
    trace = trace_of(
        CONSTANT,
        operations=(LINEAR, replace(NORMALIZED, module="norm")),
        modules=shape.modules.values(),
    )

    assert len(list(DegenerateNormalization().check(trace))) == 1


@pytest.mark.parametrize("leaf", [True, False], ids=["of-a-layer", "of-the-whole-model"])
def test_the_output_of_a_container_is_no_input(leaf: bool) -> None:
    """A model that returns its loss first has an output that does not vary."""
    trace = trace_of(
        CONSTANT,
        operations=(LINEAR, NORMALIZED),
        modules=(ModuleFacts("0", "Linear" if leaf else "Model", 0, leaf=leaf),),
    )

    assert bool(findings_of(DegenerateNormalization(), trace)) is leaf
