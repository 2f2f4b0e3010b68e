"""Trace: what was measured in one run, as plain data that rules ask questions of."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from gradlint.facts import Event as Event
from gradlint.facts import Facts as Facts
from gradlint.facts import Flow as Flow
from gradlint.facts import GraphFacts as GraphFacts
from gradlint.facts import LossFacts as LossFacts
from gradlint.facts import ModuleFacts as ModuleFacts
from gradlint.facts import OptimizerFacts as OptimizerFacts
from gradlint.facts import ParameterFacts as ParameterFacts
from gradlint.facts import TensorFacts as TensorFacts
from gradlint.graph import WEIGHTED, Graph, Operation
from gradlint.loop_facts import ClippingFacts as ClippingFacts
from gradlint.loop_facts import DetachedFacts as DetachedFacts
from gradlint.loop_facts import DiscardedFacts as DiscardedFacts
from gradlint.loop_facts import EmptyFacts as EmptyFacts
from gradlint.loop_facts import LoopFacts as LoopFacts
from gradlint.loop_facts import OriginalFacts as OriginalFacts
from gradlint.loop_facts import QuietFacts as QuietFacts
from gradlint.loop_facts import RankFacts as RankFacts
from gradlint.loop_facts import ScalerFacts as ScalerFacts
from gradlint.loop_facts import StrangerFacts as StrangerFacts
from gradlint.loop_facts import TermFacts as TermFacts
from gradlint.observation import MODEL as MODEL
from gradlint.observation import Observation as Observation
from gradlint.observation import Site as Site


class Trace:
    """What was measured in one run; narrows by `of`, `at`, `initial`, `training`."""

    def __init__(
        self,
        observations: Iterable[Observation] = (),
        *,
        modules: Mapping[str, ModuleFacts] | None = None,
        parameters: Mapping[str, ParameterFacts] | None = None,
        graph: Graph | None = None,
        facts: Facts | None = None,
    ) -> None:
        self.observations: tuple[Observation, ...] = tuple(observations)
        self.modules: Mapping[str, ModuleFacts] = modules or {}
        self.parameters: Mapping[str, ParameterFacts] = parameters or {}
        self.graph = graph or Graph()
        self.facts = facts or Facts()
        self._narrowed: dict[str, Trace] = {}

    def _narrow(self, observations: Iterable[Observation]) -> Trace:
        return Trace(
            observations,
            modules=self.modules,
            parameters=self.parameters,
            graph=self.graph,
            facts=self.facts,
        )

    def __len__(self) -> int:
        return len(self.observations)

    def __iter__(self) -> Iterator[Observation]:
        return iter(self.observations)

    @cached_property
    def _by_metric(self) -> Mapping[str, list[Observation]]:
        index: dict[str, list[Observation]] = {}
        for seen in self.observations:
            index.setdefault(seen.metric, []).append(seen)
        return index

    @cached_property
    def _by_path(self) -> Mapping[str, list[Observation]]:
        index: dict[str, list[Observation]] = {}
        for seen in self.observations:
            index.setdefault(seen.site.path, []).append(seen)
        return index

    def of(self, metric: str) -> Trace:
        """Observations of one metric."""
        if metric not in self._narrowed:
            self._narrowed[metric] = self._narrow(self._by_metric.get(metric, ()))
        return self._narrowed[metric]

    def at(self, site: Site | str) -> Trace:
        """Observations at one site."""
        path = site if isinstance(site, str) else site.path
        return self._narrow(self._by_path.get(path, ()))

    @cached_property
    def initial(self) -> Trace:
        """Observations of step 0, before any update (several batches)."""
        return self._narrow(o for o in self.observations if o.step == 0)

    @cached_property
    def training(self) -> Trace:
        """Observations of steps 1 and later."""
        return self._narrow(o for o in self.observations if o.step > 0)

    def since(self, step: int) -> Trace:
        """Observations of step `step` and later."""
        return self._narrow(o for o in self.observations if o.step >= step)

    @cached_property
    def metrics(self) -> frozenset[str]:
        """Names of the metrics observed."""
        return frozenset(self._by_metric)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Sites observed, in order of depth."""
        unique = dict.fromkeys(o.site for o in self.observations)
        return tuple(sorted(unique, key=lambda site: site.depth))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps observed, each once, ascending."""
        return tuple(sorted({o.step for o in self.observations}))

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Values in the order they were observed."""
        return tuple(o.value for o in self.observations)

    @property
    def median(self) -> float:
        """Median value; NaN when nothing was observed."""
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def last(self) -> float:
        """Latest value; NaN when nothing was observed."""
        return self.values[-1] if self.values else float("nan")

    @property
    def first(self) -> float:
        """Earliest value; NaN when nothing was observed."""
        return self.values[0] if self.values else float("nan")

    def events(self, name: str) -> tuple[Event, ...]:
        """Events called `name`."""
        return tuple(e for e in self.facts.events if e.name == name)

    def module_kind(self, path: str) -> str:
        """Class name of the module at `path`; empty when unknown."""
        facts = self.modules.get(path)
        return facts.kind if facts else ""

    def weight_layers(self) -> tuple[Operation, ...]:
        """Operations of the model that multiply by a weight, in forward order."""
        return tuple(op for op in self.graph if op.kind in WEIGHTED and not op.in_loss)

    def but(self, *, facts: Facts | None = None, **changes: Any) -> Trace:
        """Return a copy with other facts (or other fields, by keyword)."""
        return Trace(
            changes.get("observations", self.observations),
            modules=changes.get("modules", self.modules),
            parameters=changes.get("parameters", self.parameters),
            graph=changes.get("graph", self.graph),
            facts=facts or self.facts,
        )
