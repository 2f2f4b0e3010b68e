"""Formats: which there are, what several reports become, what is refused."""

from __future__ import annotations

import json

import jsonschema
import pytest

from gradlint.errors import UsageError
from gradlint.report import SCHEMA_FILE, Report
from gradlint.reporters import format_of_file, formats, render, reporter
from gradlint.reporters.base import Options
from gradlint.reporters.sample import healthy_report, sick_report


def test_the_folder_is_the_registry():
    assert formats()[:2] == ("full", "concise")
    assert {"json", "jsonl"} <= set(formats())
    assert reporter("concise")(healthy_report(), Options()).startswith("healthy.py: healthy")


def test_one_report_is_a_json_object_and_several_an_array():
    one = json.loads(render([sick_report()], "json"))
    two = json.loads(render([sick_report(), healthy_report()], "json"))

    assert one["verdict"] == "unhealthy"
    assert [entry["verdict"] for entry in two] == ["unhealthy", "healthy"]


def test_json_is_ascii_and_obeys_the_schema():
    text = render([sick_report()], "json")

    assert text.isascii()
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(text), schema)


def test_jsonl_is_one_report_a_line():
    lines = render([sick_report(), healthy_report()], "jsonl").splitlines()

    assert [Report.from_json(line).verdict for line in lines] == ["unhealthy", "healthy"]


@pytest.mark.parametrize("name", ["sarf", "html5", ""])
def test_an_unknown_format_is_refused_with_those_there_are(name):
    with pytest.raises(UsageError, match="available: full, concise, "):
        reporter(name)


def test_a_near_miss_is_suggested():
    with pytest.raises(UsageError, match="did you mean 'concise'"):
        reporter("concice")


@pytest.mark.parametrize(
    ("file", "name"), [("a.json", "json"), ("a.b.JSONL", "jsonl"), ("dir/x.txt", "full")]
)
def test_files_tell_their_format_by_their_extension(file, name):
    assert format_of_file(file) == name


@pytest.mark.parametrize("file", ["report", "report.full", "report.doc"])
def test_other_extensions_are_refused(file):
    with pytest.raises(UsageError, match="expected a file ending in one of"):
        format_of_file(file)
