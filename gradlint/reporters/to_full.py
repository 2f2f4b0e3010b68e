"""Full text: the verdict, each cause with what it explains, then the model layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.reporters.base import Options, console_for, count, finished, number
from gradlint.reporters.charts import sparkline
from gradlint.reporters.findings import brief, draw_finding
from gradlint.reporters.layers import draw_layers

VERDICTS = {
    "healthy": ("✓", "green"),
    "suspicious": ("▲", "yellow"),
    "unhealthy": ("✗", "red"),
    "not-observed": ("○", "magenta"),
}
FULL_BLOCKS = 8
"""Causes shown with all their evidence; the others follow in one line each."""
FEW = 4


def render(report: Report, options: Options) -> str:
    """Return `report` as text for a person, `options.width` columns wide."""
    console = console_for(options)
    with console.capture() as drawing:
        _headline(console, report)
        _stopped(console, report)
        _causes(console, report, options)
        if not options.quiet:
            draw_layers(console, report, options)
            _footnotes(console, report, options)
    return finished(drawing.get(), options)


def _stopped(console: Console, report: Report) -> None:
    if report.error is None:
        return
    console.print(Padding(Text(f"The target {report.error.sentence}"), (0, 0, 0, 2)))


def _headline(console: Console, report: Report) -> None:
    mark, color = VERDICTS[report.verdict]
    target = report.target
    name = ":".join(part for part in (target.path, target.object) if part) or "model"
    size = "" if target.parameters is None else count(target.parameters, "parameter")
    about = ", ".join(part for part in (size, target.device) if part)
    console.print(
        Text.assemble(
            (f"{mark} {report.verdict}", f"bold {color}"), f"  {name}", (f"  {about}", "dim")
        )
    )
    summary = report.summary
    if report.verdict == "not-observed" and not report.findings:
        return
    parts = [
        count(n, level.label)
        for level, n in zip(
            (Severity.ERROR, Severity.WARNING, Severity.NOTE),
            (summary.error, summary.warning, summary.note),
            strict=True,
        )
        if n
    ]
    parts += [count(summary.steps, "step"), count(summary.rules_run, "rule")]
    line = Text("  " + " · ".join(parts), "dim")
    loss = [value for _, value in report.series.get("loss", ())]
    if len(loss) > 1:
        line.append(f" · loss {number(loss[0])} → {number(loss[-1])} ")
        line.append(sparkline(loss, max(0, min(16, console.width - line.cell_len))))
    console.print(line)


def _causes(console: Console, report: Report, options: Options) -> None:
    causes = [found for found in report.causes if found.severity > Severity.NOTE or found.symptoms]
    for found in causes[:FULL_BLOCKS]:
        console.print()
        draw_finding(console, report, found, options)
    notes = [
        *causes[FULL_BLOCKS:],
        *(found for found in report.causes if found not in causes),
    ]
    if not notes:
        return
    console.print()
    limit = len(notes) if options.verbose else FEW
    for found in notes[:limit]:
        console.print(brief(found))
        if options.verbose and found.help:
            console.print(Padding(Text(found.help, "dim"), (0, 0, 0, 2)))
    if len(notes) > limit:
        console.print(Text(f"… and {count(len(notes) - limit, 'note')} more", "dim"))


def _footnotes(console: Console, report: Report, options: Options) -> None:
    lines = [
        *_assumed(report),
        *_explained(report, options),
        *_suppressed(report),
        *_skipped(report, options),
        *(("note", notice) for notice in report.notices),
    ]
    worst = next((f for f in report.causes if f.severity > Severity.NOTE), None)
    if worst is not None:
        lines.append(("more", f"gradlint explain {worst.code}"))
    if not lines:
        return
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, style="dim")
    grid.add_column(style="dim", ratio=1)
    previous = ""
    for label, line in lines:
        grid.add_row("" if label == previous else label, line)
        previous = label
    console.print()
    console.print(Padding(grid, (0, 0, 0, 2)))


Note = tuple[str, str]


def _assumed(report: Report) -> Iterable[Note]:
    for key, value in report.target.assumed.items():
        yield "assumed", f"{key}: {value}"


def _explained(report: Report, options: Options) -> Iterable[Note]:
    reasons: dict[str, list[str]] = {}
    for entry in report.explained:
        reasons.setdefault(entry.because, []).append(entry.module or "model")
    limit = len(reasons) if options.verbose else FEW
    for because, places in list(reasons.items())[:limit]:
        others = f" and {len(places) - 1} more" if len(places) > 1 else ""
        yield "ok", f"{places[0]}{others}: {because}"
    if len(reasons) > limit:
        yield "ok", f"{count(len(reasons) - limit, 'more reason')} (-v lists them)"


def _suppressed(report: Report) -> Iterable[Note]:
    if report.suppressed:
        by = Counter(entry.by for entry in report.suppressed)
        parts = ", ".join(f"{n} by {who}" for who, n in by.items())
        yield "silenced", parts


def _skipped(report: Report, options: Options) -> Iterable[Note]:
    if not report.skipped:
        return
    if options.verbose:
        yield from (("skipped", f"{code}: {why}") for code, why in report.skipped.items())
    else:
        yield "skipped", f"{count(len(report.skipped), 'rule')} had nothing to judge (-v)"
