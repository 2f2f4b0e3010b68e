"""A comparison as text: what got worse first, then what got better, then the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradlint.compare import Comparison, FindingChange, MetricChange, Side
from gradlint.finding import Severity
from gradlint.health import MEASURES
from gradlint.reporters.base import Options, console_for, count, finished, number
from gradlint.reporters.layers import elide

OUTCOMES = {
    "worse": ("✗", "red"),
    "mixed": ("▲", "yellow"),
    "better": ("✓", "green"),
    "same": ("✓", "green"),
}
ORDER = {"worse": 0, "new": 1, "better": 2, "gone": 3, "changed": 4, "same": 5}
COLORS = {"worse": "red", "new": "red", "better": "green", "gone": "green"}
FEW = 12
"""Places shown of one kind; -v shows all."""


def render(comparison: Comparison, options: Options) -> str:
    """Return `comparison` as text for a person, `options.width` columns wide."""
    console = console_for(options)
    with console.capture() as drawing:
        _headline(console, comparison, options)
        _findings(console, comparison, options)
        _metrics(console, comparison, options)
    return finished(drawing.get(), options)


def _headline(console: Console, comparison: Comparison, options: Options) -> None:
    mark, color = OUTCOMES[comparison.outcome]
    console.print(Text(f"{mark} {comparison.outcome}", f"bold {color}"))
    if options.quiet:
        return
    for label, side in (("base", comparison.base), ("new", comparison.new)):
        console.print(Text(f"  {label:<5} {_name(side)}: {_about(side)}", "dim"))
    if comparison.base.steps != comparison.new.steps:
        console.print(Text(f"  compared over the first {comparison.until:,} steps", "dim"))


def _name(side: Side) -> str:
    named = getattr(side.target, "trace", None) or side.target.path or side.target.object
    return str(named or "model")


def _about(side: Side) -> str:
    return f"{side.verdict}, {count(side.steps, 'step')}"


def _findings(console: Console, comparison: Comparison, options: Options) -> None:
    changes = sorted(comparison.findings, key=lambda f: (ORDER[f.status], -f.severity))
    shown = [f for f in changes if f.status != "same" or options.verbose]
    same = sum(f.status == "same" for f in changes)
    if shown:
        console.print()
        grid = Table.grid(padding=(0, 1))
        for width in (8, 8, 6):
            grid.add_column(width=width, no_wrap=True)
        grid.add_column(ratio=1)
        for found in shown:
            grid.add_row(*_finding(found))
        console.print(Padding(grid, (0, 0, 0, 2)))
    if same and not options.quiet:
        console.print(Text(f"  {count(same, 'finding')} in both", "dim"))


def _finding(found: FindingChange) -> tuple[Text, Text, Text, Text]:
    place = f"{found.module}: " if found.module else ""
    level = found.severity.label
    if found.status in ("worse", "better") and found.before is not None:
        level = f"{found.before.label} → {level}"
        place = f"{level}: {place}"
    return (
        Text(found.status, COLORS.get(found.status, "")),
        Text(found.severity.label, "" if found.severity > Severity.NOTE else "dim"),
        Text(found.code, "bold"),
        Text(f"{place}{found.message}"),
    )


def _metrics(console: Console, comparison: Comparison, options: Options) -> None:
    rows = [m for m in comparison.metrics if m.status not in ("same", "new", "gone")]
    if options.verbose:
        rows = list(comparison.metrics)
    if not options.verbose and options.quiet:
        rows = [m for m in rows if m.status != "changed"]
    rows.sort(key=lambda m: (ORDER[m.status], -abs(m.times)))
    if not rows:
        if not options.quiet:
            console.print(Text("  no number changed by more than its spread", "dim"))
        return
    console.print()
    chosen = _chosen(rows, options)
    table = Table.grid(padding=(0, 1))
    places = min(max(len(_place(m)) for m in chosen), max(12, options.width - 58))
    for width, right in (
        (8, False),
        (22, False),
        (places, False),
        (8, True),
        (2, False),
        (8, True),
    ):
        table.add_column(width=width, no_wrap=True, justify="right" if right else "left")
    table.add_column(width=9, no_wrap=True, justify="right", style="dim")
    for metric in chosen:
        table.add_row(
            Text(metric.status, COLORS.get(metric.status, "dim")),
            Text(metric.metric),
            Text(elide(_place(metric), places)),
            Text(_number(metric.base)),
            Text("→", "dim"),
            Text(_number(metric.new)),
            Text(_spread(metric)),
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    if len(rows) > len(chosen):
        console.print(Text(f"  and {count(len(rows) - len(chosen), 'more number')} (-v)", "dim"))


def _chosen(rows: Sequence[MetricChange], options: Options) -> Sequence[MetricChange]:
    if options.verbose:
        return rows
    shown: dict[str, int] = {}
    chosen = []
    for metric in rows:
        shown[metric.status] = shown.get(metric.status, 0) + 1
        if shown[metric.status] <= FEW:
            chosen.append(metric)
    return chosen


def _place(metric: MetricChange) -> str:
    return metric.place or "model"


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _spread(metric: MetricChange) -> str:
    if metric.spread is None or not math.isfinite(metric.spread):
        return ""
    if MEASURES[metric.metric].log:
        return f"× {number(10**metric.spread)}"
    return f"± {number(metric.spread)}"
