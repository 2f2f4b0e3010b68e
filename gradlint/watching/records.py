"""Records: what a loop gave so far, as plain numbers, bounded in memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gradlint.observation import MODEL, Observation, Site
from gradlint.watching.plan import Layout

ROWS = 512
"""Light steps kept at most; beyond, every second of the older ones goes."""

POINTS = 8192
"""Points of a series kept at most, such as the loss of every step."""

_FIRST = 16


@dataclass
class Row:
    """Numbers of one light step."""

    step: int
    layout: Layout
    values: array[float]

    def observations(self) -> Iterator[Observation]:
        """Yield the numbers with their names and places."""
        for (metric, site), value in zip(self.layout.columns, self.values, strict=True):
            if value == value or metric not in ("gradient_ratio", "update_to_weight_ratio"):
                yield Observation(metric, site, self.step, value)


@dataclass
class Records:
    """Light rows and series of a loop."""

    rows: list[Row] = field(default_factory=list)
    series: dict[tuple[str, Site], list[tuple[int, float]]] = field(default_factory=dict)

    def row(self, step: int, layout: Layout, values: list[float]) -> None:
        """Keep a light step."""
        self.rows.append(Row(step, layout, array("d", values)))
        if len(self.rows) > ROWS:
            self.rows = _thinned(self.rows, ROWS)

    def point(self, metric: str, step: int, value: float, site: Site = MODEL) -> None:
        """Keep a point of a series."""
        self.add(self.points(metric, site), step, value)

    def points(self, metric: str, site: Site) -> list[tuple[int, float]]:
        """Return the points of a series, to be added to by `add`."""
        return self.series.setdefault((metric, site), [])

    def add(self, points: list[tuple[int, float]], step: int, value: float) -> None:
        """Keep a point of the series that has `points`."""
        points.append((step, value))
        if len(points) > POINTS:
            points[:] = _thinned(points, POINTS)

    def observations(self, keep: Callable[[str], bool] = lambda metric: True) -> list[Observation]:
        """Return everything as observations, in the order of steps."""
        found = [o for row in self.rows for o in row.observations() if keep(o.metric)]
        found += [
            Observation(metric, site, step, value)
            for (metric, site), points in self.series.items()
            if keep(metric)
            for step, value in points
        ]
        return found


def _thinned(items: list, most: int) -> list:  # type: ignore[type-arg]
    """Drop every second item but the first few and the latest quarter."""
    recent = len(items) - most // 4
    return items[:_FIRST] + items[_FIRST:recent:2] + items[recent:]
