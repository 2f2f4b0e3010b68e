"""Windows: which units of each rectifier fired at all, over several batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gradlint.graph import Graph, Operation
from gradlint.hooks.sites import unit_axis
from gradlint.hooks.tensor_facts import number
from gradlint.metrics import Tap, all_metrics, metrics_at
from gradlint.metrics.dead_fraction import fired_units
from gradlint.observation import Observation, Site


class Windows:
    """Units that fired since the window was opened, by the site of their rectifier."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Site, Tensor, int]] = {}

    def open(self) -> None:
        """Forget which units fired so far."""
        self._seen.clear()

    def add(self, graph: Graph, op: Operation, site: Site, activation: Tensor) -> None:
        """Note which units of a rectifier fired in one batch."""
        fired, positions = fired_units(activation, unit_axis(graph, op))
        _, known, count = self._seen.get(op.site, (site, fired, 0))
        if known.shape == fired.shape:
            self._seen[op.site] = (site, known | fired, count + positions)

    def measured(self) -> Iterator[tuple[str, Site, Tensor]]:
        """Yield what the units' silence comes to: a metric's name, its site, its value."""
        for site, fired, count in self._seen.values():
            with torch.no_grad():
                for metric in metrics_at(Tap.RECTIFIED):
                    yield metric.name, site, metric(fired)
                positions = torch.tensor(float(count))
                yield "dead_positions", site, all_metrics()["dead_positions"](positions)

    def observations(self, step: int) -> Iterator[Observation]:
        """Yield the same as observations of `step`; reads them back."""
        for name, site, value in self.measured():
            yield Observation(name, site, step, number(value))
