"""GitLab's Code Quality report: a list of problems, each with a line and a fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import ReportedFinding
from gradlint.reporters.base import Options
from gradlint.reporters.places import Fingerprints, failure, place_of, told, where
from gradlint.rules import find_rule

_LEVELS = {Severity.ERROR: "critical", Severity.WARNING: "major", Severity.NOTE: "info"}


def render(report: Report, options: Options) -> str:
    """Return `report` as one JSON array."""
    return render_all([report], options)


def render_all(reports: Sequence[Report], _: Options) -> str:
    """Return `reports` as one JSON array: GitLab takes one of a job."""
    names = Fingerprints()
    problems = [problem for report in reports for problem in _problems(report, names)]
    return json.dumps(problems, indent=2) + "\n"


def _problems(report: Report, names: Fingerprints) -> Iterator[dict[str, Any]]:
    if report.error is not None:
        record = ReportedFinding(
            id=1, code="GL000", rule="stopped", severity=Severity.ERROR, message=failure(report)
        )
        yield _problem(report, record, names) | {"severity": "blocker"}
    for found in report.findings:
        yield _problem(report, found, names)


def _problem(report: Report, found: ReportedFinding, names: Fingerprints) -> dict[str, Any]:
    place = place_of(report, found.source)
    at = where(found)
    return {
        "description": f"{found.code} {found.rule}{f' at {at}' if at else ''}: {told(found)}",
        "check_name": f"{found.code}-{found.rule}",
        "fingerprint": names.of(report, found),
        "severity": _severity(found),
        "location": {"path": place.file, "lines": {"begin": place.line}},
    }


def _severity(found: ReportedFinding) -> str:
    """Return GitLab's word: an error that is a fact, not a statistic, blocks."""
    rule = find_rule(found.code)
    if found.severity is Severity.ERROR and rule is not None and rule.exact:
        return "blocker"
    if found.severity is Severity.WARNING and found.cause is not None:
        return "minor"
    return _LEVELS[found.severity]
