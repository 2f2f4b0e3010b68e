"""One finding in full: what, where, its evidence, what to do, and what it explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import CureRecord, ReportedFinding
from gradlint.reporters import charts
from gradlint.reporters.base import Options, number

STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
MARKS = {Severity.ERROR: "✗", Severity.WARNING: "▲", Severity.NOTE: "○"}
BLAMELESS = ("structural", "loss")
FEW = 4
"""Symptoms shown under their cause, where there are more."""


def draw_finding(
    console: Console, report: Report, found: ReportedFinding, options: Options
) -> None:
    """Draw `found` with all that helps to understand and to cure it."""
    console.print(headline(found))
    inner = _inner(found, options)
    symptoms = report.symptoms_of(found)
    if symptoms:
        inner.append(("explains", _symptoms(symptoms, options)))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, style="dim")
    grid.add_column(ratio=1)
    console.print(Padding(Text(found.message), (0, 0, 0, 2)))
    for name, content in inner:
        grid.add_row(name, content)
    console.print(Padding(grid, (0, 0, 0, 2)))


def headline(found: ReportedFinding) -> Text:
    """Return mark, code, name and place."""
    style = STYLES[found.severity]
    text = Text.assemble(
        (f"{MARKS[found.severity]} {found.code} ", f"bold {style}"), (found.rule, "bold")
    )
    places = found.modules or (() if found.module is None else (found.module,))
    if places:
        others = f" and {len(places) - 1} more" if len(places) > 1 else ""
        text.append(f"  {places[0] or 'model'}{others}")
    if found.source is not None:
        text.append(f"  {found.source.file}:{found.source.line}", "dim")
    return text


def brief(found: ReportedFinding) -> Text:
    """Return the finding in one paragraph."""
    style = STYLES[found.severity]
    return Text.assemble(
        (f"{MARKS[found.severity]} {found.code} ", style), f"{found.rule}: {found.message}"
    )


def _inner(found: ReportedFinding, options: Options) -> list[tuple[str, RenderableType]]:
    inner: list[tuple[str, RenderableType]] = []
    line = _code_line(found)
    if line:
        inner.append(("line", Text(line, "dim")))
    facts = _facts(found.evidence, options)
    if facts:
        inner.append(("measured", Text(facts)))
    shares = found.evidence.get("decades")
    if isinstance(shares, Mapping) and shares:
        inner.append(("decades", decade_bars(shares, min(24, options.width - 50))))
    if found.help:
        inner.append(("help", Text(found.help)))
    if found.cure is not None:
        inner.append(("cure", _cure(found.cure)))
    return inner


def _code_line(found: ReportedFinding) -> str:
    if found.source is None:
        return ""
    try:
        lines = Path(found.source.file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # a report may be read where the code is not
        return ""
    return lines[found.source.line - 1].strip() if found.source.line <= len(lines) else ""


def _facts(evidence: Mapping[str, Any], options: Options) -> str:
    """The numbers and words of `evidence`; counts of nothing only say so if asked to."""
    scalars = {
        key: value
        for key, value in evidence.items()
        if isinstance(value, (float, str)) or (type(value) is int and (value or options.verbose))
    }
    limit = len(scalars) if options.verbose else 6
    pairs = [f"{key.replace('_', ' ')} {number(scalars[key])}" for key in list(scalars)[:limit]]
    return " · ".join(pairs)


def decade_bars(shares: Mapping[str, Any], width: int) -> Table:
    """Return the shares of a decay or growth as bars, largest first, blameless ones last.

    Where some shrink and some grow the gradient, the bars go both ways from one axis.
    """
    values = {k: float(v) for k, v in shares.items() if isinstance(v, (int, float))}
    values = {k: v for k, v in values.items() if round(abs(v), 1) > 0 or len(values) == 1}
    order = sorted(values, key=lambda kind: (kind in BLAMELESS, -abs(values[kind])))
    largest = max((abs(v) for v in values.values()), default=1.0) or 1.0
    both = min(values.values(), default=0.0) < 0 < max(values.values(), default=0.0)
    half = width // 2 if both else width
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="dim")
    for kind in order:
        value = values[kind]
        drawn = charts.bar(abs(value) / largest, half)
        style = "dim" if kind in BLAMELESS else ("red" if value < 0 else "magenta")
        if both:
            drawn = f"{'█' * len(drawn):>{half}}│" if value < 0 else " " * half + "│" + drawn
        blame = ("  not blamed", "dim") if kind in BLAMELESS else ("", "")
        size = f"{value:+.1f}".replace("-", "−")
        table.add_row(kind, Text(drawn, style), Text.assemble(size, blame))
    return table


def _cure(cure: CureRecord) -> RenderableType:
    text = Text(cure.summary)
    if cure.verified:
        text.append("  ✓ verified", "green")
    for key in cure.after:
        if key in cure.before:
            change = f"{number(cure.before[key])} → {number(cure.after[key])}"
            text.append(f"\n{key.replace('_', ' ')} {change}", "dim")
    if cure.code:
        text.append("\n" + "\n".join(f"  {line}" for line in cure.code.splitlines()), "cyan")
    return text


def _symptoms(symptoms: Iterable[ReportedFinding], options: Options) -> RenderableType:
    found = list(symptoms)
    limit = len(found) if options.verbose else FEW
    table = Table.grid()
    for symptom in found[:limit]:
        table.add_row(brief(symptom))
        if options.verbose and symptom.because:
            table.add_row(Text(f"  because {symptom.because}", "dim"))
    if len(found) > limit:
        table.add_row(Text(f"… and {len(found) - limit} more", "dim"))
    return table
