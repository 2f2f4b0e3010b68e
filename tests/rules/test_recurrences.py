"""Weights that are applied to what they led to."""

from __future__ import annotations

from dataclasses import replace

from gradlint.graph import Graph, Operation
from gradlint.rules._recurrences import recurrences
from gradlint.testing import chain, trace_of
from gradlint.trace import ParameterFacts, Trace


def recurrence(steps: int, *, again: bool = True) -> Trace:
    """Each step adds an input to the weighted state and rectifies the sum."""
    operations: list[Operation] = []
    for step in range(steps):
        at = 4 * step
        state = (at - 1,) if step and again else ()
        operations += [
            Operation(at, "linear", "", "read", parameters=("read.weight",)),
            Operation(at + 1, "linear", "", "turn", state, ("turn.weight",)),
            Operation(at + 2, "add", "", "", (at, at + 1)),
            Operation(at + 3, "relu", "", "", (at + 2,), site=f"turn:relu#{step}"),
        ]
    weights = [ParameterFacts(f"{name}.weight", (8, 8)) for name in ("read", "turn")]
    return trace_of(operations=operations, parameters=weights)


def test_a_weight_applied_to_what_it_led_to_is_a_recurrence() -> None:
    ((weight, links),) = recurrences(recurrence(5))

    assert weight == "turn.weight"
    assert [link.path for link in links] == ["turn"] * 5
    assert [link.activation.site for link in links] == [f"turn:relu#{i}" for i in range(5)]


def test_a_weight_shared_side_by_side_is_none() -> None:
    assert not list(recurrences(recurrence(5, again=False)))
    assert not list(recurrences(trace_of(operations=chain("linear", "relu", "linear"))))


def test_a_layer_shared_over_depth_is_none() -> None:
    """A normalization stands between its uses."""
    operations = chain("linear", "relu", "layer_norm", "linear", modules={0: "turn", 3: "turn"})

    trace = trace_of(operations=operations, parameters=[ParameterFacts("turn.weight", (8, 8))])
    assert not list(recurrences(trace))


def test_a_weight_that_the_loss_applies_again_is_none() -> None:
    trace = recurrence(5)
    inside = Graph(tuple(replace(op, in_loss=True) for op in trace.graph))

    assert not list(recurrences(trace.but(graph=inside)))
