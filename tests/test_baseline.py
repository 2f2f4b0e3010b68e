"""Baseline: what is accepted stays silent until it is worse, elsewhere, or gone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given

from gradlint.acceptance import accept, pruned, updated
from gradlint.baseline import Entry, entry_of, measure_of, read_baseline, write_baseline
from gradlint.errors import ConfigError, UsageError
from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import ReportedFinding
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.rules import all_rules
from tests.reporters.reports import reports

TARGET = "model.py:Net"


def dead(fraction: float, *modules: str, **values: Any) -> ReportedFinding:
    return ReportedFinding(
        **{
            "id": 1,
            "code": "GL201",
            "rule": "dead-units",
            "severity": Severity.WARNING,
            "message": "units never fired",
            "module": modules[0] if modules else None,
            "modules": modules,
            "evidence": {"dead_fraction": fraction, "limit": 0.5, "positions": 512.0},
            **values,
        }
    )


def report_of(*found: ReportedFinding, **changes: Any) -> Report:
    numbered = tuple(f.model_copy(update={"id": i}) for i, f in enumerate(found, start=1))
    return sick_report().model_copy(
        update={"suppressed": (), "findings": numbered, "rules": ("GL201", "GL301"), **changes}
    )


def entries_for(*found: ReportedFinding) -> tuple[Entry, ...]:
    return updated(report_of(*found), TARGET, ())


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ({"dead_fraction": 0.9, "limit": 0.5}, ("dead_fraction", 0.9, "larger")),
        ({"decay": 1e-9, "limit": 1e-3}, ("decay", 1e-9, "smaller")),
        ({"ratio": 9.0, "limit": [0.1, 2.0]}, ("ratio", 9.0, "larger")),
        ({"ratio": 0.01, "limit": [0.1, 2.0]}, ("ratio", 0.01, "smaller")),
        ({"stds": {"a": 3.0, "b": 8.0}, "limit": 2.0}, ("stds", 8.0, "larger")),
        ({"count": 3}, None),
        ({"value": float("nan"), "limit": 1.0}, None),
        ({"kind": "ReLU", "limit": 1.0}, None),
        ({}, None),
    ],
)
def test_the_main_number_is_the_first_and_its_limit_tells_what_is_worse(evidence, expected):
    measure = measure_of(dead(0.0, "a", evidence=evidence))

    found = None if measure is None else (measure.name, measure.value, measure.worse)
    assert found == expected


def test_a_rule_names_the_number_where_it_is_not_the_first():
    evidence = {"activation": "Sigmoid", "target_minimum": 0.0, "excess": 3.0, "limit": 1.0}
    found = dead(0.0, "a", code="GL603", evidence=evidence)

    measure = measure_of(found)
    assert measure is None or measure.name == "excess"
    for rule in all_rules():
        assert isinstance(rule.measure, str)


def test_a_fact_has_no_number():
    exact = next(rule for rule in all_rules() if rule.exact)

    assert measure_of(dead(0.9, "a", code=exact.code)) is None


@pytest.mark.parametrize(
    ("now", "shown"), [(0.6, False), (0.51, False), (0.659, False), (0.67, True)]
)
def test_a_finding_returns_when_it_is_a_tenth_worse(now, shown):
    held = accept(report_of(dead(now, "a")), TARGET, entries_for(dead(0.6, "a")))

    assert len(held.report.findings) == shown
    if shown:
        assert "dead fraction 0.67, the baseline accepts 0.6" in held.report.findings[0].message


@pytest.mark.parametrize(("now", "shown"), [(1e-8, False), (0.95e-9, False), (0.8e-9, True)])
def test_where_smaller_is_worse_it_returns_below(now, shown):
    def decay(value: float) -> ReportedFinding:
        return dead(0, "a", code="GL301", evidence={"decay": value, "limit": 1e-3})

    held = accept(report_of(decay(now)), TARGET, entries_for(decay(1e-9)))

    assert len(held.report.findings) == shown


def test_a_finding_returns_at_a_new_place_and_as_an_error():
    entries = entries_for(dead(0.6, "a", "b"))

    fewer = accept(report_of(dead(0.6, "b")), TARGET, entries).report
    more = accept(report_of(dead(0.6, "a", "b", "c")), TARGET, entries).report
    worse = accept(report_of(dead(0.6, "a", severity=Severity.ERROR)), TARGET, entries).report

    assert fewer.findings == ()
    assert "the baseline does not accept it at c" in more.findings[0].message
    assert "the baseline accepts a warning" in worse.findings[0].message


def test_other_rules_targets_and_parameters_are_not_accepted():
    entries = entries_for(dead(0.6, "a", parameter="a.weight"))

    def left(found: ReportedFinding, target: str = TARGET) -> int:
        return len(accept(report_of(found), target, entries).report.findings)

    assert left(dead(0.6, "a", parameter="a.weight")) == 0
    assert left(dead(0.6, "a", parameter="a.bias")) == 1
    assert left(dead(0.6, "a", parameter="a.weight", code="GL303")) == 1
    assert left(dead(0.6, "a", parameter="a.weight"), "other.py:Net") == 1


@pytest.mark.parametrize(
    ("patterns", "modules", "accepted"),
    [
        (("layers.*",), ("layers.0", "layers.12.fc"), True),
        (("layers.*",), ("layers.0", "head"), False),
        (("layers.*", "head"), ("layers.0", "head"), True),
        (("*",), ("anything",), True),
        (("*",), (), True),
        ((), (), True),
        ((), ("a",), False),
        (("",), ("",), True),
    ],
)
def test_modules_are_patterns(patterns, modules, accepted):
    entry = Entry(code="GL201", modules=patterns)

    held = accept(report_of(dead(0.9, *modules)), TARGET, [entry])

    assert (held.report.findings == ()) is accepted


def test_an_accepted_cause_leaves_its_symptoms_on_their_own_feet():
    report = sick_report()
    entry = entry_of(TARGET, report.findings[0])

    held = accept(report, TARGET, [entry]).report

    assert [f.code for f in held.findings] == ["GL303", "GL609", "GL606", "GL805"]
    assert [f.id for f in held.findings] == [1, 2, 3, 4]
    assert {f.cause for f in held.findings} == {None}
    assert (held.verdict, held.exit_code, held.summary.error) == ("suspicious", 0, 0)
    (silenced,) = [entry for entry in held.suppressed if entry.by == "baseline"]
    assert (silenced.code, silenced.severity, silenced.source.line) == ("GL301", Severity.ERROR, 12)


@pytest.mark.parametrize("code", [2, 3, 130])
def test_an_exit_code_that_is_no_matter_of_findings_stays(code):
    report = report_of(dead(0.6, "a"), exit_code=code)

    held = accept(report, TARGET, entries_for(dead(0.6, "a")))

    assert (held.report.findings, held.report.exit_code) == ((), code)


def test_what_is_gone_is_stale_and_pruned():
    entries = entries_for(dead(0.6, "a", "b"))

    gone = accept(report_of(), TARGET, entries)
    shrunk = accept(report_of(dead(0.6, "b")), TARGET, entries)

    assert [e.modules for e in gone.stale] == [("a", "b")]
    assert "the baseline accepts GL201 dead-units at a and 1 more" in gone.report.notices[0]
    assert pruned(entries, gone.stale) == ()
    assert [e.modules for e in pruned(entries, shrunk.stale)] == [("b",)]


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(report_of(rules=("GL301",)), id="the rule did not run"),
        pytest.param(report_of(verdict="not-observed"), id="nothing was observed"),
        pytest.param(report_of(rules=(), skipped={}), id="not known what ran"),
    ],
)
def test_nothing_is_stale_that_was_not_looked_for(report):
    report = report.model_copy(update={"skipped": {}})

    assert accept(report, TARGET, entries_for(dead(0.6, "a"))).stale == ()
    assert accept(report_of(), "other.py", entries_for(dead(0.6, "a"))).stale == ()


def test_updating_keeps_patterns_and_reasons_and_takes_the_value_of_now():
    entry = Entry(code="GL201", target=TARGET, modules=("layers.*",), value=0.9, worse="larger",
                  reason="see the ticket")  # fmt: skip

    (new,) = updated(report_of(dead(0.6, "layers.0", "layers.2")), TARGET, [entry])

    assert (new.modules, new.value, new.reason) == (("layers.*",), 0.6, "see the ticket")


@given(report=reports())
def test_after_an_update_everything_is_accepted_and_nothing_stale(report):
    report = report.model_copy(update={"error": None})
    entries = updated(report, TARGET, ())

    held = accept(report, TARGET, entries)

    assert held.report.findings == ()
    assert held.stale == ()
    assert updated(report, TARGET, entries) == entries


@given(report=reports())
def test_a_baseline_is_read_as_it_was_written(report, tmp_path_factory):
    file = tmp_path_factory.mktemp("b") / "b.json"
    entries = updated(report, "m.py", ())
    writable = [e for e in entries if not re.search("[\ud800-\udfff]", str(e.model_dump()))]

    write_baseline(file, writable)

    assert sorted(map(repr, read_baseline(file).accepted)) == sorted(map(repr, writable))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "cannot be read as a baseline"),
        ("[]", "is no baseline"),
        ("{}", None),
        ('{"schema": "gradlint.baseline/2"}', "is no baseline: schema"),
        ('{"accepted": [{"module": "a"}]}', "is no baseline: accepted.0.code"),
        ('{"accepted": [{"code": "GL201", "modul": []}]}', "accepted.0.modul: Extra inputs"),
        ("\ud800", "cannot be read as a baseline"),
    ],
)
def test_a_broken_baseline_is_told_in_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "b.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))

    if sentence is None:
        assert read_baseline(file).accepted == ()
        return
    with pytest.raises(ConfigError, match=sentence):
        read_baseline(file)


def test_a_baseline_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with pytest.raises(UsageError, match="cannot write the baseline"):
        write_baseline(tmp_path / "no" / "b.json", ())


def test_a_baseline_has_a_version_and_reads_well_in_a_diff(tmp_path):
    file = tmp_path / "b.json"
    write_baseline(file, entries_for(dead(0.6, "b"), dead(0.7, "a", code="GL102")))

    data = json.loads(file.read_text())
    assert data["schema"] == "gradlint.baseline/1"
    assert [entry["code"] for entry in data["accepted"]] == ["GL102", "GL201"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_healthy_report_stays_as_it_is():
    report = healthy_report()

    assert accept(report, TARGET, ()).report == report
