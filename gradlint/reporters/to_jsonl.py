"""JSON lines: the whole report on one line."""

from __future__ import annotations

from gradlint.report import Report
from gradlint.reporters.base import Options


def render(report: Report, _: Options) -> str:
    """Return `report` as one JSON object on one line."""
    return report.to_json(indent=None) + "\n"
