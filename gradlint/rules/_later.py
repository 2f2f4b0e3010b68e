"""Graphs of later steps, seen as the first one is. No rule here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradlint.facts import GraphFacts
from gradlint.graph import Graph
from gradlint.rules._loop import roots
from gradlint.trace import ModuleFacts, Trace


def phases(trace: Trace) -> Iterator[Trace]:
    """Yield the trace, and one for each later graph, with what that step was given and made."""
    yield trace
    for seen in trace.facts.later:
        given = seen.inputs[0].shape if seen.inputs else ()
        yield trace.but(
            graph=Graph(seen.operations),
            modules=_of_its_models(trace, seen),
            facts=replace(
                trace.facts,
                inputs=seen.inputs,
                targets=seen.targets,
                outputs=seen.outputs,
                losses=seen.losses,
                batch_size=given[0] if given else None,
                later=(),
            ),
        )


def _of_its_models(trace: Trace, seen: GraphFacts) -> dict[str, ModuleFacts]:
    """Modules of the models that a later graph goes through."""
    labels = {(op.module or "").partition(".")[0] for op in seen.operations}
    all_of_them = roots(trace) == {""}
    return {
        path: facts
        for path, facts in trace.modules.items()
        if all_of_them or not path or path.partition(".")[0] in labels
    }
