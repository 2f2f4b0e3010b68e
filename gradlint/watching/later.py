"""Later: graphs of later steps, where they lead to what the first one does not know."""

from __future__ import annotations

from typing import Any

from gradlint.engine import Observer
from gradlint.facts import GraphFacts
from gradlint.graph import Graph
from gradlint.hooks import loss as losses
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.watching.described import described, only

MOST = 3
"""Graphs that are kept: heads may take turns for ever, phases of a script are few."""

MOST_OPERATIONS = 4096
"""Operations of a graph that is kept."""

MOST_CALLS = 64
"""Outermost calls of one step that are followed."""


class Later:
    """Of the steps that are looked at in full: graphs with parameters that none before had.

    A student after its teacher, a classifier on a pretrained encoder, the other side of a GAN.
    What models were given and returned is held until backward, as autograd does.
    """

    def __init__(self) -> None:
        self.graphs: list[GraphFacts] = []
        self._known: set[str] = set()
        self._given: dict[str, Any] = {}
        self._returned: dict[str, Any] = {}

    def begin(self) -> None:
        """A step begins, or its forward was for nothing."""
        self._given.clear()
        self._returned.clear()

    def enter(self, path: str, inputs: Any) -> None:
        """A part is called, from outside of any other, and with gradient."""
        if len(self.graphs) < MOST and len(self._given) < MOST_CALLS:
            self._given.setdefault(path, inputs)

    def leave(self, path: str, output: Any) -> None:
        """Such a part returned."""
        if path in self._given:
            self._returned.pop(path, None)
            self._returned[path] = output

    def note(self, observer: Observer, step: int) -> None:
        """Keep the step's graph, if it is another network's than those before."""
        captured = observer.captured
        given, returned = dict(self._given), dict(self._returned)
        self.begin()
        if captured is None or len(self.graphs) >= MOST:
            return
        graph = captured.graph
        paths = {path for op in graph for path in op.parameters}
        facts = observer.facts_of_parameters
        new = [path for path in paths - self._known if path in facts and facts[path].requires_grad]
        self._known |= paths
        if graph is observer.graph or not new or len(graph) > MOST_OPERATIONS:
            return
        called = [path for path in given if _leads_to(graph, path)]
        first = next(iter(called), None)
        last = next((path for path in reversed(returned) if path in called), None)
        output = None if last is None else returned[last]
        floating = [t for _, t in named_tensors(output, "output") if t.is_floating_point()]
        found = losses.from_graph(captured, floating, [])
        self.graphs.append(
            GraphFacts(
                step=step,
                operations=graph.operations,
                inputs=() if first is None else described(only(given[first]), "input"),
                targets=tuple(seen.target for seen in found if seen.target is not None),
                outputs=described(output, "output"),
                losses=tuple(found),
            )
        )


def _leads_to(graph: Graph, path: str) -> bool:
    """Whether the graph goes through the module at `path`."""
    inside = f"{path}."
    return any(op.module == path or (op.module or "").startswith(inside) for op in graph)
