"""Charts by depth: gradient flow, activations, gradient to weight, and gradients' entries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gradlint.health import MEASURES
from gradlint.reporters.base import number
from gradlint.reporters.html.rows import Row
from gradlint.reporters.html.svg import Panel, Point, Scale, short_names, tag
from gradlint.reporters.layers import elide

POINTS = 120
"""Points of a line; of more, each stretch is drawn by its least and its largest."""
DOTS = 60
FLOW_BAND = 1e3
"""Limits of GL301 and GL302: a thousandth, and a thousandfold, of the gradient at the end."""

Band = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its title, what it shows, and the meaning of its colors."""

    title: str
    svg: Markup
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False


def profiles(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yield the charts by depth that the rows have numbers for."""
    end = next((v for r in reversed(rows) if (v := r.first.get("gradient_norm"))), None)
    band = None
    if end is not None and math.isfinite(end):
        band = (end / FLOW_BAND, end * FLOW_BAND)
    wanted: tuple[tuple[str, str, Band, str], ...] = (
        (
            "gradient_norm", "Gradient flow", band,
            "Norm of the loss gradient at each layer. Shaded: within 1000 times the last layer's.",
        ),
        (
            "activation_std", "Activations", MEASURES["activation_std"].band,
            "Standard deviation behind each layer. Shaded: 0.5 to 2.",
        ),
        (
            "gradient_ratio", "Gradient to weight", MEASURES["gradient_ratio"].band,
            "‖gradient‖ / ‖weight‖ of each layer. Shaded: 1e-3 to 1e-1.",
        ),
    )  # fmt: skip
    for name, title, shade, caption in wanted:
        seen = [row for row in rows if row.now(name) is not None]
        if len(seen) > 1:
            yield _profile(seen, name, title, shade, caption)
    spread = [row for row in rows if row.quantiles]
    if len(spread) > 1:
        yield _entries(spread)


def _profile(rows: Sequence[Row], name: str, title: str, band: Band, caption: str) -> Figure:
    first = [(float(r.index), r.first[name]) for r in rows if name in r.first]
    last = [(float(r.index), r.last[name]) for r in rows if name in r.last]
    both = [y for _, y in [*first, *last]]
    span = [b for b in (band or ()) if name != "gradient_norm"]
    panel = _panel(rows, [*both, *span])
    if band:
        panel.band(*band, caption)
    panel.axes(*_ends(rows))
    legend = []
    for points, class_, words in ((first, "a", "initial"), (last, "b", "latest")):
        if points:
            panel.line(envelope(points, POINTS), f"line {class_}")
            legend.append((class_, words))
    shown = last or first
    names = {float(row.index): row.path for row in rows}
    if len(shown) <= DOTS:
        panel.dots(shown, lambda i: f"{names[shown[i][0]]}: {number(shown[i][1])}",
                   "dot b" if last else "dot a")  # fmt: skip
    words = _told(rows, shown, band)
    return Figure(title, panel.drawn(title, words), caption, tuple(legend))


def _panel(rows: Sequence[Row], values: Sequence[float]) -> Panel:
    scale = Scale.over(values, log=True)
    return Panel(scale, float(rows[0].index), float(rows[-1].index))


def _ends(rows: Sequence[Row]) -> tuple[str, str]:
    names = short_names(row.path for row in rows)
    start, end = (
        f"{row.path} {row.kind}" if row.path.isdigit() else elide(names[row.path], 20)
        for row in (rows[0], rows[-1])
    )
    return start, end


def _told(rows: Sequence[Row], points: Sequence[Point], band: Band) -> str:
    start, end = points[0][1], points[-1][1]
    told = (
        f"{len(points)} layers in order of execution, logarithmic: {number(start)} at "
        f"{rows[0].path}, {number(end)} at {rows[-1].path}."
    )
    if band is not None:
        off = sum(not band[0] <= y <= band[1] for _, y in points)
        told += f" {off} of them outside {number(band[0])} to {number(band[1])}."
    return told


def _entries(rows: Sequence[Row]) -> Figure:
    title = "Gradient entries"
    values = [v for row in rows for v in row.quantiles]
    panel = _panel(rows, values)
    panel.axes(*_ends(rows))
    thin = rows if len(rows) <= POINTS else [rows[i * len(rows) // POINTS] for i in range(POINTS)]
    whole = [
        row for row in thin if len(row.quantiles) == 5 and all(map(math.isfinite, row.quantiles))
    ]
    room = (panel.x(1) - panel.x(0)) if len(rows) > 1 else 20.0
    half = max(0.8, min(4.0, room * (len(rows) / len(thin)) * 0.35))
    for row in whole:
        x = panel.x(row.index)
        p05, p25, p50, p75, p95 = map(panel.scale.y, row.quantiles)
        q = " · ".join(number(v) for v in row.quantiles)
        panel.parts.append(
            tag(
                "g",
                tag("title", f"{row.path}: 5 % · 25 % · median · 75 % · 95 %: {q}"),
                tag("line", x1=x, x2=x, y1=p95, y2=p05, class_="whisker"),
                tag("rect", x=x - half, width=2 * half, y=p75, height=max(1.0, p25 - p75),
                    class_="box"),
                tag("line", x1=x - half, x2=x + half, y1=p50, y2=p50, class_="median"),
            )
        )  # fmt: skip
    zero = sum(row.quantiles[2] == 0 for row in rows)
    told = (
        f"Magnitudes of the entries of each layer's weight gradient, logarithmic: median "
        f"{number(rows[0].quantiles[2])} at {rows[0].path}, {number(rows[-1].quantiles[2])} at "
        f"{rows[-1].path}." + (f" In {zero} layers most entries are zero." if zero else "")
    )
    caption = (
        "Magnitudes of each weight gradient at initialization: median, middle half, 5 to 95 %."
    )
    return Figure(title, panel.drawn(title, told), caption)


def envelope(points: Sequence[Point], buckets: int) -> list[Point]:
    """Return `points`; of many, the least and the largest of each stretch, faults kept."""
    if len(points) <= 2 * buckets:
        return list(points)
    groups: list[list[Point]] = [[] for _ in range(buckets)]
    for i, point in enumerate(points):
        groups[i * buckets // len(points)].append(point)
    kept: list[Point] = []
    for group in groups:
        finite = [p for p in group if math.isfinite(p[1])]
        fault = next((p for p in group if not math.isfinite(p[1])), None)
        ends = {min(finite, key=_height), max(finite, key=_height)} if finite else set()
        kept += sorted([*ends, *([fault] if fault else [])], key=lambda p: p[0])
    return kept


def _height(point: Point) -> float:
    return point[1]
