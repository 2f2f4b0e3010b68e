"""What the templates say: a report in words and drawings, ready to be placed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from gradlint import explain
from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import CureRecord, ReportedFinding
from gradlint.reporters.base import count, number
from gradlint.reporters.html import curves, maps, profiles, prose
from gradlint.reporters.html.profiles import Figure
from gradlint.reporters.html.rows import Row, rows_of
from gradlint.reporters.html.svg import signed
from gradlint.reporters.places import failure, module_name, place_of, target_name, where
from gradlint.rules import all_rules

MARKS = {"healthy": "✓", "suspicious": "▲", "unhealthy": "✗", "not-observed": "○"}
SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "▲", Severity.NOTE: "○"}
PLACES = 40
"""Modules of a finding that are listed."""

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Told:
    """A finding in the words of the page."""

    found: ReportedFinding
    sign: str
    level: str
    where: str
    line: str
    modules: tuple[str, ...]
    more_modules: int
    facts: Pairs
    decades: Pairs
    changes: list[tuple[str, str, str]]
    symptoms: tuple[Told, ...] = ()


def view(report: Report, index: int) -> dict[str, Any]:
    """Return what the templates need of one report; `index` keeps its anchors apart."""
    rows = rows_of(report)
    causes = [_told(report, found) for found in report.causes]
    return {
        "id": f"r{index}",
        "report": report,
        "name": target_name(report),
        "mark": MARKS[report.verdict],
        "about": _about(report),
        "counts": _counts(report),
        "failure": failure(report),
        "causes": [told for told in causes if told.level != "note" or told.symptoms],
        "notes": [told for told in causes if told.level == "note" and not told.symptoms],
        "pages": {code: pages(code) for code in {f.code for f in report.findings}},
        "depth": list(profiles.profiles(rows)),
        "steps": list(curves.curves(report)),
        "maps": list(maps.heat_maps(report)),
        "parts": list(maps.decompositions(report)),
        "rows": rows,
        "columns": _columns(rows),
        "explained": _explained(report),
        "suppressed": _suppressed(report),
        "versions": ", ".join(f"{k} {v}" for k, v in report.versions.items()),
    }


def _about(report: Report) -> str:
    target, summary = report.target, report.summary
    parts = [] if target.parameters is None else [count(target.parameters, "parameter")]
    parts += [target.device] if target.device else []
    if report.verdict != "not-observed" or report.findings:
        parts += [count(summary.steps, "step"), f"{count(summary.rules_run, 'rule')} judged"]
    loss = [value for _, value in report.series.get("loss", ())]
    parts += [f"loss {number(loss[0])} → {number(loss[-1])}"] if len(loss) > 1 else []
    rates = {value for _, value in report.series.get("learning_rate", ())}
    parts += [f"learning rate {number(rates.pop())}"] if len(rates) == 1 else []
    return " · ".join(parts)


def _counts(report: Report) -> list[tuple[str, str]]:
    levels = ("error", "warning", "note")
    return [(level, count(n, level)) for level in levels if (n := getattr(report.summary, level))]


def _told(report: Report, found: ReportedFinding) -> Told:
    place = place_of(report, found.source)
    modules = found.modules if len(found.modules) > 1 else ()
    decades = found.evidence.get("decades")
    decades = decades if isinstance(decades, Mapping) else {}
    return Told(
        found=found,
        sign=SIGNS[found.severity],
        level=found.severity.label,
        where=where(found),
        line=f"{place.file}:{place.line}" if found.source else "",
        modules=tuple(map(module_name, modules[:PLACES])),
        more_modules=max(0, len(modules) - PLACES),
        facts=list(_facts(found.evidence)),
        decades=[(str(k), signed(v)) for k, v in decades.items() if _real(v)],
        changes=_changes(found.cure) if found.cure else [],
        symptoms=tuple(_told(report, each) for each in report.symptoms_of(found)),
    )


def _real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _facts(evidence: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in evidence.items():
        if _real(value) or (isinstance(value, (str, bool)) and len(str(value)) <= 80):
            yield key.replace("_", " "), number(value)


def _changes(cure: CureRecord) -> list[tuple[str, str, str]]:
    return [
        (key.replace("_", " "), number(cure.before[key]), number(cure.after[key]))
        for key in cure.after
        if key in cure.before
    ]


@cache
def pages(code: str) -> Markup:
    """Return the page of a rule, without its title; empty for one that is not known here."""
    for rule in all_rules():
        if rule.code == code:
            return prose.html(explain.page(rule).partition("\n")[2].lstrip())
    return Markup("")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the layer table; `first` reads initialization, else what is latest."""

    name: str
    title: str
    first: bool = False

    def value(self, row: Row) -> float | None:
        """Return the number of `row`, if it has one."""
        return row.first.get(self.name) if self.first else row.now(self.name)

    def words(self, row: Row) -> str:
        """Return the number as it is shown."""
        value = self.value(row)
        if value is None:
            return ""
        share = self.name in ("dead_fraction", "saturated_share")
        return f"{value:.0%}" if share and value == value else number(value)

    def off(self, row: Row) -> bool:
        """Return whether the number is outside of its documented band."""
        return not self.first and self.name in row.marks


def _columns(rows: list[Row]) -> list[Column]:
    columns = [
        Column("activation_std", "std at init", first=True),
        Column("activation_std", "std"),
        Column("gradient_norm", "gradient"),
        Column("gradient_ratio", "gradient / weight"),
        Column("update_to_weight_ratio", "update / weight"),
        Column("dead_fraction", "dead"),
        Column("saturated_share", "saturated"),
    ]
    return [column for column in columns if any(column.value(row) is not None for row in rows)]


def _explained(report: Report) -> list[tuple[str, str, list[str]]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in report.explained:
        groups.setdefault((entry.code, entry.because), []).append(module_name(entry.module))
    return [(code, because, places) for (code, because), places in groups.items()]


def _suppressed(report: Report) -> list[tuple[str, str, str, int]]:
    seen = Counter((e.code, module_name(e.module), e.by, e.reason) for e in report.suppressed)
    return [
        (code, module, f"{by}: {reason}" if reason else by, n)
        for (code, module, by, reason), n in seen.items()
    ]


__all__ = ["Figure", "view"]
