"""Concise text: one line a finding, as compilers write."""

from __future__ import annotations

from gradlint.report import Report
from gradlint.report_records import ReportedFinding
from gradlint.reporters.base import Options, count, to_ascii


def render(report: Report, options: Options) -> str:
    """Return ``file:line: code name message``, one line a finding; else the verdict."""
    lines = [_line(report, found) for found in report.findings]
    if report.error is not None:
        lines.append(f"{_place(report)}: {report.error.sentence}")
    if not lines and not options.quiet:
        steps = count(report.summary.steps, "step")
        rules = count(report.summary.rules_run, "rule")
        silenced = f", {len(report.suppressed)} silenced" if report.suppressed else ""
        lines.append(f"{_place(report)}: {report.verdict} ({steps}, {rules}{silenced})")
    text = "".join(" ".join(line.split()) + "\n" for line in lines)
    return text if options.unicode else to_ascii(text)


def _place(report: Report) -> str:
    return report.target.path or report.target.object or "model"


def _line(report: Report, found: ReportedFinding) -> str:
    place = _place(report)
    if found.source is not None:
        place = f"{found.source.file}:{found.source.line}"
    return f"{place}: {found.code} {found.rule} {found.message}"
