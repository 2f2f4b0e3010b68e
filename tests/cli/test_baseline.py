"""`gradlint check --baseline`: the file, what is said, the exit codes; one repository's life."""

from __future__ import annotations

import json
import textwrap
from xml.etree import ElementTree as ET

import pytest

from gradlint.reporters.sample import healthy_report, sick_report


@pytest.fixture
def targets(session, monkeypatch):
    """Targets whose reports say which rules ran."""

    def ran(report):
        codes = tuple({f.code for f in sick_report().findings})
        return lambda: report().model_copy(update={"rules": codes})

    session.answers |= {"m.py": ran(sick_report), "well.py": ran(healthy_report)}
    return session


def test_accepting_makes_the_exit_code_zero_until_something_is_new(run, targets):
    first = run("check", "m.py", "-f", "concise", "--baseline", "b.json", "--update-baseline")
    again = run("check", "m.py", "-f", "concise", "--baseline", "b.json")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "6 silenced" in again.stdout
    assert "b.json now accepts 1 error, 3 warnings, 1 note of " in first.stderr
    assert "accepted, an error: GL301 vanishing-gradient at layers.0" in first.stderr
    assert again.stderr == ""


def test_a_second_update_changes_nothing(run, targets, tmp_path):
    arguments = ("check", "m.py", "--baseline", "b.json", "--update-baseline")
    run(*arguments)
    before = (tmp_path / "b.json").read_text()

    result = run(*arguments)

    assert (tmp_path / "b.json").read_text() == before
    assert "accepts nothing more" in result.stderr


def test_what_is_gone_is_told_and_pruned(run, targets, tmp_path):
    run("check", "m.py", "--baseline", "b.json", "--update-baseline")
    data = json.loads((tmp_path / "b.json").read_text())
    data["accepted"].append({**data["accepted"][0], "modules": ["gone"]})
    (tmp_path / "b.json").write_text(json.dumps(data))

    told = run("check", "m.py", "-f", "json", "--baseline", "b.json")
    pruned = run("check", "m.py", "-f", "json", "--baseline", "b.json", "--prune-baseline")
    after = run("check", "m.py", "-f", "json", "--baseline", "b.json")

    assert "at gone of deep_sigmoid.py:build_model, which is no longer found" in told.stderr
    assert json.loads(told.stdout)["notices"]
    assert "1 entry taken out" in pruned.stderr
    assert after.stderr == ""
    assert len(json.loads((tmp_path / "b.json").read_text())["accepted"]) == 5


def test_several_targets_share_a_file(run, targets, tmp_path):
    run("check", "m.py", "well.py", "--baseline", "b.json", "--update-baseline")

    assert run("check", "m.py", "well.py", "--baseline", "b.json").exit_code == 0
    assert run("check", "well.py", "--baseline", "b.json", "-f", "concise").stderr == ""


def test_the_settings_name_the_file_beside_them(run, targets, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.gradlint]\nbaseline = "accepted.json"\n')

    assert run("check", "m.py", "--update-baseline").exit_code == 0
    assert (tmp_path / "accepted.json").is_file()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert run("check", "m.py").exit_code == 0
    assert run("check", "m.py", "--isolated").exit_code == 1
    assert "baseline: accepted.json" in run("check", "--show-settings").stdout


def test_a_target_that_failed_changes_nothing(run, session, tmp_path):
    def fail():
        raise RuntimeError("x")

    session.answers["m.py"] = fail
    result = run("check", "m.py", "--baseline", "b.json", "--update-baseline")

    assert result.exit_code != 0
    assert json.loads((tmp_path / "b.json").read_text())["accepted"] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--update-baseline"], "--update-baseline: expected a file: --baseline FILE"),
        (["--prune-baseline"], "--prune-baseline: expected a file: --baseline FILE"),
        (["--baseline", "no.json"], "found none; --update-baseline makes one"),
        (["--baseline", "bad.json"], "bad.json cannot be read as a baseline"),
        (["--baseline", "no/b.json", "--update-baseline"], "no such folder: 'no'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(run, session, tmp_path, arguments, sentence):
    (tmp_path / "bad.json").write_text("{")

    result = run("check", "m.py", *arguments)

    assert result.exit_code == 2
    assert sentence in result.stderr
    assert session.calls == []


SICK = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 16)
        self.b = nn.Linear(16, 3)

    def forward(self, x):
        return torch.softmax(self.b(torch.relu(self.a(x))), dim=1)


loss_fn = nn.CrossEntropyLoss()


def get_batch():
    return torch.randn(32, 8), torch.randint(0, 3, (32,))
"""
OPTIONS = ("--steps", "2", "--seeds", "1", "--select", "GL601,GL112,GL701")


def test_one_repository_goes_through_its_whole_life(run, tmp_path):
    """Fails in CI's form; accepted; a regression fails; the cure passes, and it is told."""
    model = tmp_path / "model.py"
    model.write_text(SICK)
    form = ("-f", "concise", "-f", "sarif:r.sarif", "-f", "junit:r.xml", "-f", "html:r.html")
    accepted = ("--baseline", "b.json")

    first = run("check", "model.py", *OPTIONS, *form)
    results = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["results"]
    failures = list(ET.parse(tmp_path / "r.xml").getroot().iter("failure"))
    assert first.exit_code == 1
    assert [(r["ruleId"], "suppressions" in r) for r in results] == [("GL601", False)]
    assert len(failures) == 1
    assert "GL601" in (tmp_path / "r.html").read_text(encoding="utf-8")
    place = results[0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "model.py"

    update = run("check", "model.py", *OPTIONS, *accepted, "--update-baseline")
    assert update.exit_code == 0
    assert "an error, a certain fault: GL601 doubled-softmax" in update.stderr
    held = run("check", "model.py", *OPTIONS, *accepted, *form)
    results = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["results"]
    assert held.exit_code == 0
    assert [(r["ruleId"], "suppressions" in r) for r in results] == [("GL601", True)]

    model.write_text(SICK.replace("self.b(torch.relu(self.a(x)))", "self.b(self.a(x).detach())"))
    regression = run("check", "model.py", *OPTIONS, *accepted, "-f", "concise")
    assert regression.exit_code == 1
    assert "GL701" in regression.stdout
    assert "GL601" not in regression.stdout

    cured = SICK.replace("torch.softmax(", "(").replace(", dim=1", "")
    model.write_text(textwrap.dedent(cured))
    cure = run("check", "model.py", *OPTIONS, *accepted, "-f", "concise")
    assert cure.exit_code == 0
    assert "the baseline accepts GL601 doubled-softmax" in cure.stderr
    assert run("check", "model.py", *OPTIONS, *accepted, "--prune-baseline").exit_code == 0
    assert json.loads((tmp_path / "b.json").read_text())["accepted"] == []


def test_a_saved_report_is_held_against_a_baseline_too(run, tmp_path):
    report = sick_report().model_copy(update={"exit_code": 1})
    (tmp_path / "r.json").write_text(report.to_json())

    assert run("report", "r.json", "-f", "concise").exit_code == 1
    run("report", "r.json", "--baseline", "b.json", "--update-baseline")
    held = run("report", "r.json", "-f", "concise", "--baseline", "b.json")

    assert (held.exit_code, "silenced" in held.stdout) == (0, True)
