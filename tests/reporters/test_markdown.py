"""Markdown: causes first, one line a row, nothing of the user's words read as markup."""

from __future__ import annotations

import re

from hypothesis import given

from gradlint.report import failed_report
from gradlint.reporters import render
from gradlint.reporters.sample import healthy_report, sick_report
from tests.reporters.reports import reports


def test_the_verdict_then_the_causes_then_what_to_do():
    text = render([sick_report()], "markdown")

    order = ["### ✗ gradlint: unhealthy", "| ✗ error | GL301", "| ▲ warning | GL606",
             "| ○ note | GL805", "GL301 vanishing-gradient: what to do", "GL303"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "verified" in text
    assert "`deep_sigmoid.py:12`" in text


def test_a_healthy_report_has_no_table():
    text = render([healthy_report()], "markdown")

    assert text.startswith("### ✓ gradlint: healthy")
    assert "|---|" not in text


def test_a_target_that_stopped_says_why():
    failed = failed_report("no model in it", "TargetNotFoundError", 2, {"path": "empty.py"})

    assert "**stopped: TargetNotFoundError: no model in it**" in render([failed], "markdown")


@given(report=reports())
def test_any_words_leave_the_table_whole(report):
    text = render([report], "markdown")

    text.encode("utf-8")
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if line == "|---|---|---|---|"]
    assert len(starts) == (1 if report.causes else 0)
    for start in starts:
        rows = lines[start + 1 : start + 1 + len(report.causes)]
        assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    outside = re.sub(r"^(`{3,})python\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert outside.count("<details>") == outside.count("</details>")
