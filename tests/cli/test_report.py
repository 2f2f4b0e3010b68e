"""`gradlint report`: saved traces judged again, saved reports shown, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradlint.graph import Operation
from gradlint.report import Report
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.testing import observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, Trace
from gradlint.trace_file import TraceWriter, write_trace


def a_trace(dead: float = 0.0, loss: float = 1.0, ended: str = "") -> Trace:
    """A run whose one rectifier has so many dead units."""
    return trace_of(
        observe("loss", "", [2.0], kind="model", step=0),
        observe("loss", "", [loss] * 40, kind="model"),
        observe("dead_fraction", "act", [dead], kind="ReLU", step=0),
        observe("dead_positions", "act", [4096], kind="ReLU", step=0),
        observe("dead_fraction", "act", [dead], kind="ReLU", step=40),
        observe("dead_positions", "act", [4096], kind="ReLU", step=40),
        operations=[Operation(0, "relu", "relu", "act", site="act", shape=(32, 64))],
        modules=[ModuleFacts("act", "ReLU", depth=0, output_shape=(32, 64))],
        command="run",
        loop=LoopFacts(steps=40, ended=ended),
    )


@pytest.fixture
def saved(tmp_path):
    """Save a trace under a name; gives the file."""

    def save(trace: Trace, name: str = "run.jsonl", **target: str) -> Path:
        path = tmp_path / name
        write_trace(path, trace, versions={"torch": "9.9", "gradlint": "0.0"}, target=target)
        return path

    return save


def codes(stdout: str) -> list[str]:
    return [found["code"] for found in json.loads(stdout)["findings"]]


def test_a_trace_is_judged_again(run, saved):
    path = saved(a_trace(dead=0.95), path="train.py")

    result = run("report", path, "-f", "json")

    data = json.loads(result.stdout)
    assert "GL201" in codes(result.stdout)
    assert (data["target"]["path"], data["target"]["command"]) == ("train.py", "run")
    assert data["target"]["trace"] == str(path)
    assert data["versions"]["torch"] == "9.9"
    assert data["versions"]["gradlint"] != "0.0"
    assert result.exit_code == data["exit_code"]


def test_rules_thresholds_and_what_fails_are_those_of_now(run, saved, tmp_path):
    path = saved(a_trace(dead=0.95))
    (tmp_path / "lenient.yaml").write_text("rules: {dead-units: {max_fraction: 0.99}}\n")

    def found(*options: str) -> list[str]:
        return codes(run("report", path, "-f", "json", "--isolated", *options).stdout)

    assert "GL201" not in found("--ignore", "GL201")
    assert "GL201" in found("--select", "dead-units")
    assert run("report", path, "--fail-on", "note").exit_code == 1
    assert run("report", path, "--fail-on", "note", "--exit-zero").exit_code == 0
    half = saved(a_trace(dead=0.8, loss=1.9), "half.jsonl")
    only = ("--select", "GL201", "--fail-on", "warning")
    assert run("report", half, "--isolated", *only).exit_code == 1
    assert run("report", half, "--config", "lenient.yaml", *only).exit_code == 0


def test_settings_beside_the_script_hold(run, saved, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("")
    (tmp_path / "code" / "gradlint.yaml").write_text("ignore: [GL201]\n")

    here = run("report", saved(a_trace(dead=0.95), path="code/train.py"), "-f", "json")

    assert "GL201" not in codes(here.stdout)


def test_a_saved_report_is_shown_in_another_format(run, tmp_path):
    (tmp_path / "sick.json").write_text(sick_report().to_json())

    concise, again = (
        run("report", "sick.json", "-f", "concise"),
        run("report", "sick.json", "-f", "json"),
    )

    assert "GL301 vanishing-gradient" in concise.stdout
    assert Report.from_json(again.stdout) == Report.from_json(sick_report().to_json())
    assert concise.exit_code == again.exit_code == sick_report().exit_code == 1


def test_what_fails_may_differ_for_a_saved_report_too(run, tmp_path):
    (tmp_path / "sick.json").write_text(sick_report().to_json())
    (tmp_path / "well.json").write_text(healthy_report().to_json())

    assert run("report", "sick.json", "--fail-on", "never").exit_code == 0
    assert run("report", "sick.json", "--exit-zero").exit_code == 0
    assert run("report", "well.json", "--fail-on", "error").exit_code == 0


def test_arrays_and_lines_of_reports_are_shown_one_by_one(run, tmp_path):
    both = [sick_report(), healthy_report()]
    (tmp_path / "all.json").write_text("[" + ",".join(r.to_json() for r in both) + "]")
    (tmp_path / "all.jsonl").write_text("\n".join(r.to_json(indent=None) for r in both) + "\n")

    for name in ("all.json", "all.jsonl"):
        result = run("report", name, "-f", "json")
        verdicts = [report["verdict"] for report in json.loads(result.stdout)]
        assert verdicts == ["unhealthy", "healthy"]
        assert result.exit_code == 1


def test_a_report_cannot_be_judged_again_and_that_is_said(run, tmp_path):
    (tmp_path / "sick.json").write_text(sick_report().to_json())

    result = run("report", "sick.json", "--select", "GL999", "-f", "concise")

    assert "only a trace is judged again" in result.stderr
    assert "GL301" in result.stdout


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 2, "no such file"),
        ("import torch\n", 2, "neither a trace"),
        ('{"schema": "gradlint.report/9"}', 2, "neither a trace"),
        ('{"schema": "gradlint.report/1", "findings": 3}', 2, "not a gradlint report"),
        ('{"schema": "gradlint.trace/2"}\n', 2, "read it with the gradlint that wrote it"),
        ('{"schema": "gradlint.trace/1"}\n', 3, "nothing was observed"),
        ("", 2, "neither a trace"),
    ],
    ids=["missing", "code", "newer", "broken", "newer-trace", "empty-trace", "empty"],
)
def test_what_cannot_be_read_is_one_sentence_and_an_exit_code(run, tmp_path, content, code, says):
    if content is not None:
        (tmp_path / "x.jsonl").write_text(content)

    result = run("report", "x.jsonl")

    assert result.exit_code == code
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr
    assert "x.jsonl" in result.stderr


def test_a_folder_no_file_and_an_unknown_format_are_told(run, tmp_path):
    assert "got the folder" in run("report", tmp_path).stderr
    assert run("report").exit_code == 2
    assert "did you mean 'json'" in run("report", "x", "-f", "jsn").stderr


def test_of_several_files_each_is_told_and_the_worst_code_returned(run, saved, tmp_path):
    good = saved(a_trace())

    result = run("report", good, "lost.jsonl", "-f", "json")

    assert [report["exit_code"] for report in json.loads(result.stdout)] == [0, 2]
    assert result.exit_code == 2
    assert "lost.jsonl" in result.stderr


def test_a_trace_that_was_cut_off_is_judged_and_said_to_be_unclosed(run, tmp_path):
    writer = TraceWriter(tmp_path / "run.jsonl")
    trace = a_trace(dead=0.95)
    writer.whole(trace)
    path = tmp_path / "run.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 41, "of"')

    result = run("report", path, "-f", "json")
    writer.close("")

    assert "GL201" in codes(result.stdout)
    assert "killed, or still goes on" in json.loads(result.stdout)["target"]["assumed"]["ended"]


def test_against_a_baseline_what_is_worse_is_a_finding(run, saved):
    base, new = saved(a_trace(), "base.jsonl"), saved(a_trace(dead=0.35, loss=1.9), "new.jsonl")

    worse = run("report", new, "--against", base, "-f", "json")
    same = run("report", base, "--against", base, "-f", "json")

    found = [f for f in json.loads(worse.stdout)["findings"] if f["code"] == "GL910"]
    assert {f["evidence"]["metric"] for f in found} == {"loss", "dead_fraction"}
    assert "GL910" not in codes(same.stdout)
    assert run("report", new, "--against", base, "--fail-on", "warning").exit_code == 1
    assert run("report", new, "--fail-on", "warning", "--isolated").exit_code == 0


def test_a_baseline_has_to_be_a_trace(run, saved, tmp_path):
    (tmp_path / "sick.json").write_text(sick_report().to_json())
    new = saved(a_trace())

    assert "is a report" in run("report", new, "--against", "sick.json").stderr
    assert "expected a trace" in run("report", "sick.json", "--against", new).stderr
    assert run("report", new, "--against", "nowhere.jsonl").exit_code == 2


def test_formats_go_where_they_are_asked_to(run, saved, tmp_path):
    result = run("report", saved(a_trace()), "-f", "concise", "-f", "json:out.json")

    assert result.stdout.count("\n") == 1
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "healthy"


def test_neither_report_nor_compare_loads_torch(saved, tmp_path):
    path = saved(a_trace(dead=0.95))
    program = (
        "import sys\n"
        "from gradlint.cli import app\n"
        f"app(['report', {str(path)!r}, '--against', {str(path)!r}], standalone_mode=False)\n"
        f"app(['compare', {str(path)!r}, {str(path)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr.decode()
