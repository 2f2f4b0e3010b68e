"""The live view of `gradlint run --live`: drawn on a terminal, and only as often as it may be."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gradlint.observation import MODEL
from gradlint.reporters.live import WIDTH, Moment, panel

if TYPE_CHECKING:
    from rich.live import Live

    from gradlint.watching import Watcher

AT_MOST = 4.0
"""Drawings a second."""

SHARE = 0.005
"""Of the run's time that drawing may take."""

LATEST = 2000
"""Points of a curve that are drawn, those of the end."""


class LiveView:
    """Draws a watched loop; `moved` is called after every step."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._next = 0.0

    def moved(self, watcher: Watcher) -> None:
        """Draw, if enough time has passed."""
        now = time.monotonic()
        if now < self._next:
            return
        self._live.update(panel(moment_of(watcher)), refresh=True)
        cost = time.monotonic() - now
        self._next = now + max(1 / AT_MOST, cost / SHARE)


def moment_of(watcher: Watcher) -> Moment:
    """Return what `watcher` knows right now, without reading anything back."""
    loop = watcher.loop
    series = loop.records.series
    losses = [p for (metric, _), points in series.items() if metric == "loss" for p in points]
    rates = [points for (metric, _), points in series.items() if metric == "learning_rate"]
    limits = series.get(("clipping_limit", MODEL), [])
    norms = series.get(("norm_before_clipping", MODEL), [])
    clipped = sum(n > limit for (_, n), (_, limit) in zip(norms, limits, strict=False))
    totals, ratios = latest_row(watcher)
    return Moment(
        step=loop.steps,
        seconds=loop.seconds,
        observed=loop.looked_at,
        loss=[value for _, value in sorted(losses[-LATEST:])],
        norm=totals or [value for _, value in norms[-LATEST:]],
        rate=rates[0][-1][1] if rates and rates[0] else None,
        clipped=clipped / len(norms) if norms else None,
        ratios=ratios,
        said=watcher.said,
    )


def latest_row(watcher: Watcher) -> tuple[list[float], dict[str, float]]:
    """Return the total gradient norms of the looked-at steps, and the latest ratios."""
    rows = watcher.loop.records.rows[-WIDTH * 4 :]
    totals: list[float] = []
    for row in rows:
        for (metric, site), value in zip(row.layout.columns, row.values, strict=True):
            if metric == "total_gradient_norm" and site == MODEL:
                totals.append(value)
    ratios: dict[str, float] = {}
    if rows:
        observer = watcher.loop.observer
        lone = next(iter(observer.roots), "") if len(observer.roots) == 1 else ""
        facts = observer.facts_of_parameters
        for (metric, site), value in zip(rows[-1].layout.columns, rows[-1].values, strict=True):
            # A bias starts near zero, so that its ratio says nothing.
            if metric == "gradient_ratio" and len(facts[site.path].shape) > 1:
                ratios[site.path.removeprefix(f"{lone}.") if lone else site.path] = value
    return totals, ratios


@contextmanager
def live_view(wanted: bool) -> Iterator[LiveView | None]:
    """Yield a view on stderr if `wanted` and it is a terminal.

    What the script prints stands above the view if stdout is a terminal, too, and goes where
    it always did if not.
    """
    if not wanted or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    both = sys.stdout is not None and sys.stdout.isatty()
    with Live(
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=both,
        redirect_stderr=True,
    ) as live:
        yield LiveView(live)
