"""Graphs of later steps, seen as the first one is."""

from __future__ import annotations

from gradlint.graph import Operation
from gradlint.rules._later import phases
from gradlint.testing import trace_of
from gradlint.trace import GraphFacts, LoopFacts, ModuleFacts, TensorFacts

MODULES = (
    ModuleFacts("", "models"),
    ModuleFacts("first.fc", "Linear"),
    ModuleFacts("second.fc", "Linear"),
)
FIRST = Operation(0, "linear", "", "first.fc")
SECOND = Operation(0, "conv", "", "second.fc")
GIVEN = TensorFacts("input", (16, 8), "float32")


def test_a_later_graph_comes_with_the_models_and_the_data_of_its_step() -> None:
    later = GraphFacts(40, (SECOND,), (GIVEN,))
    trace = trace_of(
        operations=(FIRST,), modules=MODULES, batch_size=4, loop=LoopFacts(), later=(later,)
    )

    first, second = phases(trace)

    assert first is trace
    assert second.graph.operations == (SECOND,)
    assert set(second.modules) == {"", "second.fc"}
    assert second.facts.inputs == (GIVEN,)
    assert second.facts.batch_size == 16
    assert second.facts.later == ()


def test_of_one_model_all_modules_are_kept_and_no_input_has_no_batch() -> None:
    modules = (ModuleFacts("", "Net"), ModuleFacts("fc", "Linear"))
    later = GraphFacts(40, (Operation(0, "linear", "", "head"),))
    trace = trace_of(operations=(FIRST,), modules=modules, loop=LoopFacts(), later=(later,))

    _, second = phases(trace)

    assert set(second.modules) == {"", "fc"}
    assert second.facts.batch_size is None
