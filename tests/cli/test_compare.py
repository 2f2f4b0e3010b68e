"""`gradlint compare`: exit codes, formats, what is refused."""

from __future__ import annotations

import json

import pytest

from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.testing import observe, trace_of
from gradlint.trace import Trace
from gradlint.trace_file import write_trace


def with_loss(level: float) -> Trace:
    start = observe("loss", "", [2.0], kind="model", step=0)
    return trace_of(start, observe("loss", "", [level] * 40, kind="model"))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "sick.json").write_text(sick_report().to_json())
    (tmp_path / "well.json").write_text(healthy_report().to_json())
    write_trace(tmp_path / "low.jsonl", with_loss(0.5))
    write_trace(tmp_path / "high.jsonl", with_loss(1.5))


@pytest.mark.parametrize(
    ("arguments", "code", "outcome"),
    [
        (("well.json", "well.json"), 0, "same"),
        (("well.json", "sick.json"), 1, "worse"),
        (("sick.json", "well.json"), 0, "better"),
        (("well.json", "sick.json", "--exit-zero"), 0, "worse"),
        (("well.json", "sick.json", "--fail-on", "never"), 0, "worse"),
        (("low.jsonl", "high.jsonl"), 0, "worse"),
        (("low.jsonl", "high.jsonl", "--fail-on", "warning"), 1, "worse"),
        (("high.jsonl", "low.jsonl", "--fail-on", "warning"), 0, "better"),
    ],
)
def test_what_got_worse_makes_the_exit_code(run, files, arguments, code, outcome):
    result = run("compare", *arguments)

    assert result.exit_code == code
    assert result.stdout.splitlines()[0].split()[1] == outcome


def test_a_trace_and_a_report_can_be_compared(run, files):
    result = run("compare", "low.jsonl", "sick.json", "-f", "json")

    data = json.loads(result.stdout)
    assert data["base"]["target"]["trace"] == "low.jsonl"
    assert "GL301" in {found["code"] for found in data["findings"] if found["status"] == "new"}


def test_both_formats_at_once(run, files, tmp_path):
    result = run("compare", "low.jsonl", "high.jsonl", "-f", "full", "-f", "json:out.json")

    assert result.stdout.startswith("✗ worse")
    assert json.loads((tmp_path / "out.json").read_text())["schema"] == "gradlint.compare/1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("well.json", "lost.json"), "no such file: 'lost.json'"),
        (("well.json", "both.json"), "expected one report in 'both.json', got 2"),
        (("well.json", "sick.json", "-f", "sarif"), "expected one of full, json"),
        (("well.json", "sick.json", "-f", "full", "-f", "json"), "only one format"),
        (("well.json", "sick.json", "--fail-on", "eror"), "did you mean 'error'"),
        (("well.json", "sick.json", "-f", "json:no/where.json"), "cannot write"),
    ],
)
def test_what_cannot_be_compared_is_told(run, files, tmp_path, arguments, says):
    both = f"[{healthy_report().to_json()}, {sick_report().to_json()}]"
    (tmp_path / "both.json").write_text(both)

    result = run("compare", *arguments)

    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


def test_an_empty_trace_is_nothing_to_compare(run, files, tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"schema": "gradlint.trace/1"}\n')

    result = run("compare", "low.jsonl", "empty.jsonl")

    assert (result.exit_code, result.stdout) == (3, "")
    assert "nothing was observed" in result.stderr
