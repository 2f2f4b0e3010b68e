"""SARIF: valid by the schema, and what GitHub's code scanning asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.report import Report, failed_report
from gradlint.report_records import ReportedFinding, SourceRecord, Suppressed
from gradlint.reporters import render
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.rules import all_rules
from tests.reporters.reports import reports

SCHEMA = json.loads(
    (Path(__file__).parents[1] / "schemas" / "sarif-2.1.0-rtm.4.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)


def run_of(*given: Report) -> dict[str, Any]:
    text = render(given, "sarif")
    assert text.isascii()
    log = json.loads(text)
    VALIDATOR.validate(log)
    assert len(log["runs"]) == 1
    run: dict[str, Any] = log["runs"][0]
    return run


def finding(**values: Any) -> ReportedFinding:
    defaults = {
        "id": 1,
        "code": "GL301",
        "rule": "vanishing-gradient",
        "severity": Severity.ERROR,
        "message": "it vanishes",
        "module": "fc",
        "modules": ("fc",),
    }
    return ReportedFinding(**{**defaults, **values})


def report_of(*found: ReportedFinding, **changes: Any) -> Report:
    return healthy_report().model_copy(update={"findings": found, **changes})


def test_every_rule_has_all_that_code_scanning_shows():
    rules = run_of(healthy_report())["tool"]["driver"]["rules"]

    assert [rule["id"] for rule in rules] == [rule.code for rule in all_rules()]
    for rule in rules:
        assert rule["name"]
        assert rule["shortDescription"]["text"]
        assert 20 < len(rule["fullDescription"]["text"]) <= 1024
        assert rule["help"]["text"]
        assert rule["help"]["markdown"].startswith(f"# {rule['id']}")
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert rule["properties"]["precision"] in ("very-high", "high")
        assert rule["properties"]["problem.severity"] in ("error", "warning", "recommendation")
        assert 0 < len(rule["properties"]["tags"]) <= 10


def test_a_result_points_to_its_rule_its_line_and_its_module():
    results = run_of(sick_report())["results"]
    first = results[0]
    place = first["locations"][0]

    assert first["ruleId"] == all_rules()[first["ruleIndex"]].code == "GL301"
    assert first["level"] == "error"
    assert first["message"]["text"].startswith("the gradient shrinks by 2.5e-09")
    assert place["physicalLocation"]["artifactLocation"] == {
        "uri": "deep_sigmoid.py",
        "uriBaseId": "%SRCROOT%",
    }
    assert place["physicalLocation"]["region"]["startLine"] == 12
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "layers.0"
    assert place["logicalLocations"][0]["name"] == "0"


def test_a_finding_without_a_line_is_at_the_first_of_the_targets_file():
    report = report_of(finding(source=None), finding(id=2, source=SourceRecord(file="a", line=0)))

    places = [r["locations"][0]["physicalLocation"] for r in run_of(report)["results"]]

    assert places[0]["artifactLocation"]["uri"] == "healthy.py"
    assert [place["region"]["startLine"] for place in places] == [1, 1]


def test_symptoms_are_results_and_related_to_their_cause():
    results = run_of(sick_report())["results"]

    related = results[0]["relatedLocations"]
    assert [place["message"]["text"].split()[1] for place in related] == ["GL303", "GL609"]
    assert [r["ruleId"] for r in results[1:3]] == ["GL303", "GL609"]
    assert results[1]["properties"]["because"]


def test_fingerprints_stay_while_lines_move_and_differ_by_rule_and_module():
    def prints(*found: ReportedFinding) -> list[str]:
        results = run_of(report_of(*found))["results"]
        return [r["partialFingerprints"]["gradlint/ruleAndModule/v1"] for r in results]

    here, moved = (SourceRecord(file="m.py", line=line) for line in (3, 300))
    assert prints(finding(source=here)) == prints(
        finding(source=moved, message="now by another number")
    )
    others = (finding(), finding(module="fc2"), finding(code="GL303"), finding())
    assert len(set(prints(*others))) == 4


def test_what_is_silenced_is_a_suppressed_result():
    silenced = (
        Suppressed(code="GL201", module="a", by="comment", reason="known since May"),
        Suppressed(code="GL301", module="b", by="baseline", severity=Severity.ERROR, message="x"),
    )
    results = run_of(healthy_report().model_copy(update={"suppressed": silenced}))["results"]

    assert [r["suppressions"][0]["kind"] for r in results] == ["inSource", "external"]
    assert results[0]["suppressions"][0]["justification"] == "known since May"
    assert (results[1]["level"], results[1]["message"]["text"]) == ("error", "x")


def test_invocations_say_how_each_target_ended():
    failed = failed_report("no model in it", "TargetNotFoundError", 2, {"path": "empty.py"})
    run = run_of(sick_report(), healthy_report(), failed)

    ends = [(i["executionSuccessful"], i["exitCode"]) for i in run["invocations"]]
    assert ends == [(True, 1), (True, 0), (False, 2)]
    notice = run["invocations"][2]["toolExecutionNotifications"][0]
    assert "no model in it" in notice["message"]["text"]


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("a b/ü.py", "a%20b/%C3%BC.py"),
        ("sub\\m.py", "sub/m.py"),
        ("./m.py", "m.py"),
        ("/else/m.py", "file:///else/m.py"),
        ("C:\\m.py", "file:///C%3A/m.py"),
        ("a#b?.py", "a%23b%3F.py"),
    ],
)
def test_files_become_uris(file, uri):
    run = run_of(report_of(finding(source=SourceRecord(file=file, line=2))))

    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place["uri"] == uri
    assert ("uriBaseId" in place) is not uri.startswith("file:")


def test_brackets_in_a_message_make_no_link():
    run = run_of(report_of(finding(message="see [0](x) and [1]")))

    assert run["results"][0]["message"]["text"] == "see \\[0](x) and [1]"


@given(given=st.lists(reports(), min_size=1, max_size=2))
def test_any_words_make_a_valid_log(given):
    run_of(*given)


def test_a_package_is_at_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").touch()
    target = healthy_report().target.model_copy(update={"path": "pkg.train"})

    (result,) = run_of(report_of(finding(), target=target))["results"]

    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "pkg/train.py"
