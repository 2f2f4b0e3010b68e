"""Curves over steps: the loss, the gradient's norm with the clipping limit, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gradlint.report import Report
from gradlint.reporters.base import number
from gradlint.reporters.html.profiles import Figure, envelope
from gradlint.reporters.html.svg import Panel, Point, Scale

POINTS = 120
FEW = 30

Series = Sequence[tuple[int, float]]
Line = tuple[str, str, Series]
"""Its class, what it is, its points."""


def curves(report: Report) -> Iterator[Figure]:
    """Yield the charts over steps that there are series for."""
    series = report.series
    loss, norm = series.get("loss", ()), series.get("total_gradient_norm", ())
    rate, limit = series.get("learning_rate", ()), series.get("clipping_limit", ())
    unclipped = series.get("norm_before_clipping", ())
    ends = [seen for seen in (loss, norm, rate) if seen]
    last = max((seen[-1][0] for seen in ends), default=0)
    first = min((seen[0][0] for seen in ends), default=0)
    if len(loss) > 1:
        yield _curve("Loss", [("b", "loss", loss)], first, last)
    if len(norm) > 1 or len(unclipped) > 1:
        lines: list[Line] = [("b", "in the optimizer", norm)] if len(norm) > 1 else []
        if len(unclipped) > 1:
            lines.insert(0, ("a", "before clipping", unclipped))
        if limit:
            lines.append(("limit", "limit", _held(limit, last)))
        yield _curve("Gradient norm", lines, first, last)
    if len({value for _, value in rate}) > 1:
        yield _curve("Learning rate", [("b", "learning rate", _held(rate, last))], first, last)


def _held(series: Series, last: int) -> list[tuple[int, float]]:
    """Return what holds until it is set anew as a line in steps; also where it stands still."""
    found: list[tuple[int, float]] = []
    for step, value in series:
        if found and found[-1][1] != value:
            found.append((step, found[-1][1]))
        if not found or found[-1][1] != value or step == series[-1][0]:
            found.append((step, value))
    return [*found, (last, found[-1][1])]


def _curve(title: str, lines: Sequence[Line], first: int, last: int) -> Figure:
    values = [y for _, _, series in lines for _, y in series]
    log = _steep(values)
    panel = Panel(Scale.over(values, log=log, least=1.0), float(first), float(last))
    panel.axes(f"step {first:,}", f"{last:,}")
    for class_, _, series in lines:
        points: list[Point] = [(float(x), y) for x, y in series]
        fine = " fine" if len(points) > POINTS and len(lines) > 1 else ""
        panel.line(envelope(points, POINTS), f"line {class_}{fine}")
        if len(points) <= FEW and class_ != "limit":
            panel.dots(points, lambda i, s=series: f"step {s[i][0]}: {number(s[i][1])}",  # type: ignore[misc]
                       f"dot {class_}", 2.2)  # fmt: skip
    told = " ".join(_told(words, series) for _, words, series in lines)
    legend = tuple((class_, words) for class_, words, _ in lines) if len(lines) > 1 else ()
    caption = _caption(lines[0][2]) + (", logarithmic" if log else "")
    return Figure(title, panel.drawn(title, told), caption, legend)


def _caption(series: Series) -> str:
    start, end = number(series[0][1]), number(series[-1][1])
    most = number(max((v for _, v in series if math.isfinite(v)), default=math.nan))
    fault = next((pair for pair in series if not math.isfinite(pair[1])), None)
    if fault is not None:
        return f"{start} → {number(fault[1])} at step {fault[0]:,}"
    return f"{start} → {end}" + (f", at most {most}" if most not in (start, end) else "")


def _steep(values: Sequence[float]) -> bool:
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 30


def _told(words: str, series: Series) -> str:
    finite = [v for _, v in series if math.isfinite(v)]
    told = f"{words} over {len(series)} points: {number(series[0][1])} to {number(series[-1][1])}"
    if finite:
        told += f", between {number(min(finite))} and {number(max(finite))}"
    fault = next((pair for pair in series if not math.isfinite(pair[1])), None)
    return told + (f"; {number(fault[1])} from step {fault[0]} on." if fault else ".")
