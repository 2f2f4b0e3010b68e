"""GitHub's workflow commands: escaped as its runner reads them, and the job's summary."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from gradlint.report import failed_report
from gradlint.reporters import Options, render, reporter
from gradlint.reporters.places import clean
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.reporters.to_github import LARGEST
from tests.reporters.reports import reports

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


def parse(line: str) -> tuple[str, dict[str, str], str]:
    """Read a command as the runner does: properties split at commas, then unescaped."""
    match = COMMAND.fullmatch(line)
    assert match, line
    pairs = (pair.split("=", 1) for pair in match[2].split(","))
    return match[1], {key: _value(value) for key, value in pairs}, _data(match[3])


def _data(text: str) -> str:
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def _value(text: str) -> str:
    return _data(text.replace("%3A", ":").replace("%2C", ","))


@pytest.fixture(autouse=True)
def _without_summary(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def test_a_finding_is_an_annotation_at_its_line():
    kind, properties, message = parse(render([sick_report()], "github").splitlines()[0])

    assert kind == "error"
    assert properties == {
        "file": "deep_sigmoid.py",
        "line": "12",
        "title": "GL301 vanishing-gradient at layers.0 and 2 more",
    }
    assert message.splitlines()[1].startswith("Replace Sigmoid by ReLU")


def test_causes_come_before_symptoms_and_notes_are_notices():
    lines = [parse(line) for line in render([sick_report()], "github").splitlines()]

    codes = [properties["title"][:5] for _, properties, _ in lines]
    assert codes == ["GL301", "GL606", "GL805", "GL303", "GL609"]
    assert [kind for kind, *_ in lines] == ["error", "warning", "notice", "warning", "warning"]


def test_a_healthy_target_needs_no_annotation():
    assert render([healthy_report()], "github") == ""


def test_a_target_that_stopped_is_an_error():
    failed = failed_report("no model in it", "TargetNotFoundError", 2, {"path": "empty.py"})

    kind, properties, message = parse(render([failed], "github").strip())
    assert (kind, properties["file"]) == ("error", "empty.py")
    assert "no model in it" in message


@given(report=reports())
def test_any_words_come_through_the_runner_unharmed(report):
    text = reporter("github")(report, Options())

    lines = text.split("\n")
    assert lines.pop() == ""
    parsed = [parse(line) for line in lines]
    told = [message.splitlines() for _, _, message in parsed]
    for found in report.findings:
        wanted = clean(f"{found.message}\n{found.help}" if found.help else found.message)
        assert wanted.splitlines() in told


def test_the_summary_is_appended_where_the_runner_wants_it(tmp_path, monkeypatch):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))

    text = render([sick_report(), healthy_report()], "github")

    written = file.read_text(encoding="utf-8")
    assert written.startswith("before\n### ✗ gradlint: unhealthy")
    assert "### ✓ gradlint: healthy" in written
    assert "###" not in text


def test_a_summary_that_would_be_dropped_is_left_as_it_is(tmp_path, monkeypatch):
    file = tmp_path / "summary.md"
    file.write_bytes(b"x" * LARGEST)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))

    render([sick_report()], "github")

    assert file.stat().st_size == LARGEST


def test_a_summary_that_cannot_be_written_costs_no_annotation(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary.md"))

    assert render([sick_report()], "github").startswith("::error ")
