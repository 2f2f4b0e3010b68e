"""GitLab's Code Quality: the fields its documentation asks for, and no two alike."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from gradlint.report import Report, failed_report
from gradlint.reporters import render
from gradlint.reporters.sample import healthy_report, sick_report
from tests.reporters.reports import reports

SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{40}$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "minLength": 1, "not": {"pattern": "^\\./"}},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
        "additionalProperties": False,
    },
}


def problems_of(*given: Report) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = json.loads(render(given, "gitlab"))
    jsonschema.Draft202012Validator(SCHEMA).validate(problems)
    prints = [problem["fingerprint"] for problem in problems]
    assert len(set(prints)) == len(prints)
    return problems


def test_several_targets_are_one_list():
    problems = problems_of(sick_report(), healthy_report(), sick_report())

    assert len(problems) == 2 * len(sick_report().findings)


def test_severities_are_gitlabs_words():
    words = {p["check_name"][:5]: p["severity"] for p in problems_of(sick_report())}

    assert words == {
        "GL301": "critical", "GL303": "minor", "GL609": "minor", "GL606": "major", "GL805": "info",
    }  # fmt: skip


def test_a_problem_is_at_its_line():
    first = problems_of(sick_report())[0]

    assert first["check_name"] == "GL301-vanishing-gradient"
    assert first["location"] == {"path": "deep_sigmoid.py", "lines": {"begin": 12}}


def test_a_target_that_stopped_blocks():
    failed = failed_report("no model in it", "TargetNotFoundError", 2, {"path": "empty.py"})

    (problem,) = problems_of(failed)
    assert problem["severity"] == "blocker"
    assert "no model in it" in problem["description"]


@given(given=st.lists(reports(), min_size=1, max_size=2))
def test_any_words_make_a_valid_list(given):
    problems_of(*given)
