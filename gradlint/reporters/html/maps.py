"""Heat maps of layers by steps, and bars of what made the gradient shrink or grow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from gradlint.health import MEASURES
from gradlint.report import Report
from gradlint.report_records import FlowRow, History
from gradlint.reporters.base import number
from gradlint.reporters.html.profiles import Figure
from gradlint.reporters.html.svg import WIDTH, drawing, short_names, signed, tag, tail, text

MAP_WIDTH, LABELS = 900, 190
EDGE = 5
"""Above the first row, for its name."""
DEEPEST = 5
BARS = 16
SHOWN_ONLY = ("structural", "loss")
"""Decades that depend on sizes, such as the batch's, and are never blamed."""
NAMES = {
    "gradient_ratio": ("Gradient to weight", 1.0),
    "update_to_weight_ratio": ("Update to weight", 1.0),
    "activation_std": ("Activation standard deviation", 0.5),
}
"""Title, and the decades that one shade stands for."""


def heat_maps(report: Report) -> Iterator[Figure]:
    """Yield a map for each metric that has a history."""
    for name, (title, decades) in NAMES.items():
        history = report.history.get(name)
        band = MEASURES[name].band
        if history is not None and history.rows and band is not None:
            yield _map(title, history, band, decades)


def shade(value: float, band: tuple[float, float], decades: float) -> str:
    """Return the class of a value: within the band, or how far below or above it."""
    low, high = band
    if not math.isfinite(value):
        return "fault"
    if low <= value <= high:
        return "h0"
    if value <= 0:
        return f"h-{DEEPEST}"
    far = math.log10(low / value) if value < low else math.log10(value / high)
    level = min(DEEPEST, 1 + int(far / decades))
    return f"h-{level}" if value < low else f"h{level}"


def _per_shade(history: History, band: tuple[float, float], least: float) -> float:
    """Return the decades of one shade, so that all that is measured has one of its own."""
    values = [v for row in history.rows.values() for v in row if v and math.isfinite(v) and v > 0]
    if not values:
        return least
    far = max(math.log10(band[0] / min(values)), math.log10(max(values) / band[1]))
    return least * max(1, min(4, math.ceil((far - least) / DEEPEST / least)))


def _map(title: str, history: History, band: tuple[float, float], decades: float) -> Figure:
    names, columns = list(history.rows), len(history.steps)
    short = short_names(names)
    high = max(4.0, min(18.0, 420 / len(names)))
    left = min(LABELS, 8 * max(map(len, short.values())) + 16)
    wide = (MAP_WIDTH - left - 4) / columns
    decades = _per_shade(history, band, decades)
    cells: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for i, values in enumerate(history.rows.values()):
        shades = ["" if v is None else shade(v, band, decades) for v in values[:columns]]
        start = 0
        for class_, group in groupby(shades):
            run = len(list(group))
            if class_:  # a little wider and higher than it is: no seams
                across = run * wide + 0.4
                x, y = left + start * wide, EDGE + i * high
                box = f"M{x:.1f} {y:.1f}h{across:.1f}v{high + 0.4:.1f}"
                cells.setdefault(class_, []).append(f"{box}h-{across:.1f}z")
                counts[class_] += run
            start += run
    parts = [
        tag("path", tag("title", _meaning(class_, band, decades)), d="".join(paths), class_=class_)
        for class_, paths in cells.items()
    ]
    bottom = EDGE + high * len(names)
    every = max(1, math.ceil(14 / high))
    parts += [
        text(left - 8, EDGE + (i + 0.5) * high + 4, tail(short[name], 26), anchor="end")
        for i, name in enumerate(names)
        if i % every == 0
    ]
    for j, share, anchor in (
        (0, 0.0, "start"),
        (columns // 2, 0.5, "middle"),
        (columns - 1, 1.0, "end"),
    ):
        x = left + (j + share) * wide
        parts.append(text(x, bottom + 17, f"step {history.steps[j]:,}", anchor=anchor))
    count = counts.total()
    far = count - counts["h0"]
    rows = "1 layer" if len(names) == 1 else f"{len(names)} layers from first to last"
    told = (
        f"{rows}, by step {history.steps[0]} to "
        f"{history.steps[-1]}: {far} of {count} cells outside {number(band[0])} to "
        f"{number(band[1])}."
    )
    svg = drawing(title, told, parts, width=MAP_WIDTH, height=math.ceil(bottom + 26))
    return Figure(title, svg, told, _legend(cells, band, decades), wide=True)


def _legend(
    cells: Mapping[str, object], band: tuple[float, float], decades: float
) -> tuple[tuple[str, str], ...]:
    order = [f"h-{i}" for i in range(DEEPEST, 0, -1)] + [f"h{i}" for i in range(DEEPEST + 1)]
    order.append("fault")
    return tuple((c, _meaning(c, band, decades)) for c in order if c in cells)


def _meaning(class_: str, band: tuple[float, float], decades: float) -> str:
    low, high = band
    if class_ == "fault":
        return "not finite"
    level = int(class_[1:])
    if level == 0:
        return f"healthy: {number(low)} to {number(high)}"
    if level < 0:
        edge = low / 10 ** ((-level - 1) * decades)
        return f"below {number(edge)}"
    return f"above {number(high * 10 ** ((level - 1) * decades))}"


def decompositions(report: Report) -> Iterator[Figure]:
    """Yield what made the gradient of the earliest layer: by kind of operation, by module."""
    if not report.flow:
        return
    row = report.flow[0]
    kinds = {k: v for k, v in row.decades.items() if math.isfinite(v)}
    if kinds:
        place = row.path or "the model"
        ordered = dict(sorted(kinds.items(), key=lambda pair: (pair[0] in SHOWN_ONLY, pair[1])))
        yield _bars(
            "Gain by operation", ordered, row,
            f"Powers of ten that the gradient gains or loses from the loss to {place}. "
            "Gray: no fault of a layer.",
        )  # fmt: skip
    layers = {k: v for k, v in row.layers.items() if math.isfinite(v)}
    if len(layers) > 1:
        kept = set(sorted(layers, key=lambda k: -abs(layers[k]))[:BARS])
        shown = {k: v for k, v in layers.items() if k in kept}
        few = (
            f"The {BARS} largest of {len(layers)} modules"
            if len(kept) < len(layers)
            else "By module"
        )
        yield _bars("Gain by module", shown, row, f"{few}, in order of execution.", total=False)


def _class(name: str, value: float) -> str:
    if name in SHOWN_ONLY:
        return "bar mute"
    return "bar total" if name == "total" else "bar down" if value < 0 else "bar up"


def _bars(
    title: str, values: Mapping[str, float], row: FlowRow, caption: str, *, total: bool = True
) -> Figure:
    short = {} if total else short_names(values)
    left, right, high = 122, WIDTH - 36, 19
    entries: Sequence[tuple[str, float]] = list(values.items())
    if total:
        entries = [*entries, ("total", sum(values.values()))]
    low = min(0.0, *(v for _, v in entries), -0.5)
    top = max(0.0, *(v for _, v in entries), 0.5)
    left += 32  # for the number on the far side

    def x(value: float) -> float:
        return left + (value - low) / (top - low) * (right - left)

    parts: list[Markup] = []
    for i, (name, value) in enumerate(entries):
        y = i * high + 4
        class_ = _class(name, value) if total else _class("", value)
        start, end = sorted((x(0), x(value)))
        label = text(114, y + 11.5, tail(short.get(name, name), 18), anchor="end")
        parts += [
            label,
            tag("rect", tag("title", f"{name}: {value:+.2f} decades"), x=start, y=y,
                width=max(1.0, end - start), height=high - 6, class_=class_),
            text(start - 5 if value < 0 else end + 5, y + 11.5,
                 signed(value), anchor="end" if value < 0 else "start",
                 class_="dim"),
        ]  # fmt: skip
    bottom = len(entries) * high + 4
    parts.append(tag("line", x1=x(0), x2=x(0), y1=0, y2=bottom, class_="axis"))
    told = (
        f"Decades at {row.path}: " + ", ".join(f"{n or 'model'} {v:+.1f}" for n, v in entries) + "."
    )
    return Figure(title, drawing(title, told, parts, width=WIDTH, height=bottom + 4), caption)
