"""What people read: the full and the concise report, and the drawings in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gradlint.finding import Severity
from gradlint.report import Report, failed_report
from gradlint.report_records import ReportedFinding
from gradlint.reporters import Options, render
from gradlint.reporters.layers import Layer, shown
from gradlint.reporters.sample import healthy_report, sick_report

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"


def everything_healthy_and_failed() -> list[Report]:
    failed = failed_report("no model in it", "TargetNotFoundError", 2, {"path": "empty.py"})
    return [sick_report(), healthy_report(), failed]


@pytest.mark.parametrize("name", ["full", "concise"])
def test_reports_look_as_they_were_approved(name):
    """Rewrite the snapshots with GRADLINT_UPDATE_SNAPSHOTS=1, and read them."""
    text = render(everything_healthy_and_failed(), name, Options(width=80))
    file = SNAPSHOTS / f"{name}.txt"

    if os.environ.get("GRADLINT_UPDATE_SNAPSHOTS"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_counts_in_the_headline_are_those_of_the_findings():
    report = sick_report()

    text = render([report], "full")

    for severity in Severity:
        number = sum(found.severity is severity for found in report.findings)
        assert re.search(rf"\b{number} {severity.label}s?\b", text)


def test_the_verdict_comes_first_and_symptoms_beneath_their_cause():
    lines = render([sick_report()], "full").splitlines()

    assert lines[0].startswith("✗ unhealthy")
    cause = next(i for i, line in enumerate(lines) if line.startswith("✗ GL301"))
    symptom = next(i for i, line in enumerate(lines) if "GL303" in line)
    other = next(i for i, line in enumerate(lines) if line.startswith("▲ GL606"))
    assert cause < symptom < other


def test_a_healthy_report_is_short():
    text = render([healthy_report()], "full")

    assert text.startswith("✓ healthy")
    assert len(text.splitlines()) <= 24


def test_quiet_leaves_the_verdict_and_the_findings():
    text = render([healthy_report()], "full", Options(quiet=True))

    assert len(text.splitlines()) == 2
    assert "layers.0" not in text


def test_verbose_leaves_no_layer_and_no_skipped_rule_out():
    short = render([healthy_report()], "full")
    text = render([healthy_report()], "full", Options(verbose=True))

    assert "⋮ 4 more" in short
    assert "⋮" not in text
    assert "GL801: not observed" in text


def test_verbose_tells_how_a_cause_brings_its_symptoms_about():
    because = "because layers without gradient do not learn"

    assert because in render([sick_report()], "full", Options(verbose=True))
    assert because not in render([sick_report()], "full")


def test_a_deep_model_shows_its_ends_and_an_even_choice_of_what_is_sick():
    layers = [Layer(str(i), "Linear", "", 1, 1, 1, 1, 1, frozenset({str(i)})) for i in range(51)]
    everywhere = frozenset(map(str, range(51)))

    assert shown(layers[:10], frozenset(), 8) == list(range(10))
    assert shown(layers, frozenset(), 8) == [0, 1, 2, 3, 47, 48, 49, 50]
    assert shown(layers, frozenset({"20"}), 8) == [0, 1, 20, 49, 50]
    assert shown(layers, everywhere, 8) == [0, 1, 7, 19, 31, 43, 49, 50]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_line_is_wider_than_the_console(width):
    text = render(everything_healthy_and_failed(), "full", Options(width=width))

    assert max(map(len, text.splitlines())) <= width


def test_color_is_only_where_it_is_wanted():
    assert "\x1b" not in render([sick_report()], "full", Options(color=False))
    assert "\x1b[" in render([sick_report()], "full", Options(color=True))


def test_color_changes_no_character():
    plain = render([sick_report()], "full")
    colored = render([sick_report()], "full", Options(color=True))

    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in unstyled.splitlines()] == plain.splitlines()


@pytest.mark.parametrize("name", ["full", "concise"])
def test_a_terminal_without_unicode_gets_ascii(name):
    text = render([sick_report()], name, Options(unicode=False))

    assert text.isascii()
    assert "GL301" in text


def test_brackets_in_messages_are_not_markup():
    found = ReportedFinding(
        id=1, code="GL605", rule="target-range", severity=Severity.ERROR, message="[red]0…9[/red]"
    )
    report = healthy_report().model_copy(update={"findings": (found,)})

    assert "[red]0…9[/red]" in render([report], "full")


def test_concise_is_one_line_a_finding():
    report = sick_report()

    lines = render([report], "concise").splitlines()

    assert len(lines) == len(report.findings)
    assert lines[0].startswith("deep_sigmoid.py:12: GL301 vanishing-gradient the gradient shrinks")
    assert all(re.match(r"[\w.]+(:\d+)?: GL\d{3} [a-z-]+ ", line) for line in lines)


def test_a_message_of_several_lines_stays_on_one_in_concise():
    found = ReportedFinding(
        id=1, code="GL501", rule="non-finite", severity=Severity.ERROR, message="a\nb"
    )
    report = healthy_report().model_copy(update={"findings": (found,)})

    assert render([report], "concise") == "healthy.py: GL501 non-finite a b\n"


def test_the_line_of_code_is_shown_where_it_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep_sigmoid.py").write_text("\n" * 11 + "    self.layers = deep(10)\n")

    assert "line     self.layers = deep(10)" in render([sick_report()], "full")
