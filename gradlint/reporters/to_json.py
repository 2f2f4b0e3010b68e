"""JSON: the whole report, for machines."""

from __future__ import annotations

from gradlint.report import Report
from gradlint.reporters.base import Options


def render(report: Report, _: Options) -> str:
    """Return `report` as one JSON object over several lines."""
    return report.to_json() + "\n"
