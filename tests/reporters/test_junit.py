"""JUnit: valid by Jenkins' schema, and what counts as failed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from gradlint.report import Report, failed_report
from gradlint.reporters import render
from gradlint.reporters.sample import healthy_report, sick_report
from tests.reporters.reports import reports

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).parents[1] / "schemas" / "junit-10.xsd"))
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def root_of(*given: Report) -> ET.Element:
    text = render(given, "junit")
    root = ET.fromstring(text.encode("utf-8"))
    SCHEMA.validate(root)
    return root


def case_of(root: ET.Element, code: str) -> ET.Element:
    return next(case for case in root.iter("testcase") if case.get("name", "").startswith(code))


def test_a_suite_is_a_target_and_a_case_is_a_rule():
    ran = healthy_report().model_copy(update={"rules": ("GL102", "GL301")})
    root = root_of(sick_report(), ran)

    assert [suite.get("name") for suite in root] == [
        "deep_sigmoid.py:build_model",
        "healthy.py:build_model",
    ]
    names = [case.get("name") for case in root[1].iter("testcase")]
    assert names == ["GL102 symmetric-units", "GL301 vanishing-gradient",
                     "GL801 small-batch-batchnorm"]  # fmt: skip


def test_counts_are_those_of_the_cases():
    failed = failed_report("no model in it", "TargetNotFoundError", 2, {"path": "empty.py"})
    root = root_of(sick_report(), failed)

    assert (root.get("failures"), root.get("errors")) == ("1", "1")
    for suite in root:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
    assert case_of(root, "target runs").find("error").get("type") == "TargetNotFoundError"


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        ("error", {"GL301"}),
        ("warning", {"GL301", "GL303", "GL606", "GL609"}),
        ("note", {"GL301", "GL303", "GL606", "GL609", "GL805"}),
        ("never", set()),
    ],
)
def test_a_case_fails_as_the_exit_code_does(fail_on, failing):
    root = root_of(sick_report().model_copy(update={"fail_on": fail_on}))

    cases = [case for case in root.iter("testcase") if case.find("failure") is not None]
    assert {case.get("name")[:5] for case in cases} == failing


def test_a_failure_says_where_what_and_what_to_do():
    failure = case_of(root_of(sick_report()), "GL301").find("failure")

    assert failure.get("message").startswith("the gradient shrinks by 2.5e-09")
    assert "deep_sigmoid.py:12" in failure.text
    assert "help: Replace Sigmoid" in failure.text
    assert "explains GL303" in failure.text


def test_a_rule_without_anything_to_judge_is_skipped_with_its_reason():
    skipped = case_of(root_of(sick_report()), "GL802").find("skipped")

    assert skipped.get("message") == "no recurrence"


@given(given=st.lists(reports(), min_size=1, max_size=2))
def test_any_words_make_valid_xml(given):
    text = render(given, "junit")

    assert not NOT_XML.search(text)
    root_of(*given)
