"""The report: its JSON contract, its verdict and exit code, its tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.errors import GradientHealthError, UsageError
from gradlint.finding import Cure, Explained, Finding, Severity, Source
from gradlint.report import SCHEMA_FILE, Report, build_report, failed_report
from gradlint.report_json import decode, encode, plain
from gradlint.report_records import Suppressed
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.testing import observe, trace_of
from gradlint.trace import Event, Flow, LoopFacts, ModuleFacts, ParameterFacts, Site, Trace

SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
NAN, INF = math.nan, math.inf


@dataclass
class Link:
    finding: Finding
    cause: int | None = None
    symptoms: tuple[int, ...] = ()


def found(severity: str = "error", **changes: object) -> Finding:
    return Finding(
        code="GL301",
        rule="vanishing-gradient",
        severity=Severity.parse(severity),
        message="the gradient shrinks",
    ).but(**changes)


def seen() -> Trace:
    return trace_of(observe("loss", "", [1.0, 0.5], kind="model"))


def report_of(*findings: Finding, trace: Trace | None = None, **changes: object) -> Report:
    trace = seen() if trace is None else trace
    return build_report([Link(f) for f in findings], trace=trace, **changes)


def data_of(report: Report) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(report.to_json())
    return loaded


def words(text: str) -> list[str]:
    return text.split()


def test_fields_have_the_names_and_the_order_of_the_contract():
    data = data_of(sick_report())
    first = data["findings"][0]

    assert data["schema"] == "gradlint.report/1"
    assert list(data)[:13] == words(
        "schema versions target verdict exit_code findings explained skipped suppressed summary "
        "modules parameters series"
    )
    assert list(data["versions"]) == words("gradlint torch python")
    assert list(data["target"])[:6] == words("path object command parameters device assumed")
    assert list(first)[:15] == words(
        "id code rule severity module modules parameter source step message cause symptoms "
        "evidence help cure"
    )
    assert list(first["cure"]) == words("summary code verified before after")
    assert list(data["summary"]) == words("error warning note steps rules_run")
    assert list(data["modules"][0])[:4] == words("path kind depth metrics")
    assert list(data["parameters"][0])[:2] == words("path metrics")


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(sick_report(), id="sick"),
        pytest.param(healthy_report(), id="healthy"),
        pytest.param(failed_report("no model", "UsageError", 2, {"path": "m.py"}), id="failed"),
        pytest.param(report_of(trace=trace_of()), id="empty"),
        pytest.param(
            report_of(
                found(evidence={"decay": NAN, "per": {"a": INF}, "list": [-INF]}),
                trace=trace_of(
                    observe("loss", "", [1.0, NAN], kind="model"),
                    observe("activation_std", "fc", [INF], step=0),
                    flows=(Flow(0, Site("fc", "Linear"), {"weights": -INF}, norm=INF),),
                ),
            ),
            id="non-finite",
        ),
    ],
)
def test_every_report_obeys_the_shipped_schema_and_has_no_field_beyond_it(report):
    data = data_of(report)

    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert set(data) <= set(SCHEMA["properties"])
    for name, rows in (("finding", "findings"), ("module", "modules"), ("parameter", "parameters")):
        for row in data[rows]:
            assert set(row) <= set(SCHEMA["$defs"][name]["properties"])


def test_the_schema_itself_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_number_that_is_not_finite_is_null_with_a_sibling_and_a_word_in_series():
    trace = trace_of(observe("loss", "", [1.0, NAN, INF, -INF], kind="model"))

    data = data_of(report_of(found(evidence={"decay": NAN, "per": {"a": -INF}}), trace=trace))

    evidence = data["findings"][0]["evidence"]
    assert evidence == {
        "decay": None,
        "decay_nonfinite": "nan",
        "per": {"a": None, "a_nonfinite": "-inf"},
    }
    assert data["series"]["loss"] == [[1, 1.0], [2, "nan"], [3, "inf"], [4, "-inf"]]


@pytest.mark.parametrize("report", [sick_report(), healthy_report()], ids=["sick", "healthy"])
def test_json_comes_back_as_the_same_report(report):
    again = Report.from_json(report.to_json())

    assert again == report
    assert again.to_json() == report.to_json()


_keys = st.text("abcde_", min_size=1, max_size=4)
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
_data = st.recursive(_leaves, lambda inner: st.dictionaries(_keys, inner, max_size=4))


@given(st.dictionaries(_keys, _data, max_size=4))
def test_encoding_is_strict_json_and_decoding_undoes_it(data):
    text = json.dumps(encode(data), allow_nan=False)

    assert repr(decode(json.loads(text))) == repr(data)


def test_fields_of_a_later_version_survive():
    data = {**data_of(healthy_report()), "novelty": 1}

    assert data_of(Report.from_json(json.dumps(data)))["novelty"] == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "other/1"}', '{"schema": "gradlint.report/1", "findings": 3}'],
)
def test_what_is_no_report_is_refused_in_one_sentence(text):
    with pytest.raises(UsageError) as raised:
        Report.from_json(text)

    assert "\n" not in str(raised.value)
    assert "report" in str(raised.value)


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ([], "healthy"),
        (["note"], "healthy"),
        (["note", "warning"], "suspicious"),
        (["warning", "error"], "unhealthy"),
    ],
)
def test_the_verdict_follows_the_worst_finding(severities, verdict):
    report = report_of(*(found(s) for s in severities))

    assert report.verdict == verdict
    assert {s: getattr(report.summary, s) for s in ("error", "warning", "note")} == {
        s: severities.count(s) for s in ("error", "warning", "note")
    }


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("error", "error", 1),
        ("warning", "error", 0),
        ("warning", "warning", 1),
        ("note", "warning", 0),
        ("note", "note", 1),
        ("error", "never", 0),
        ("error", Severity.ERROR, 1),
    ],
)
def test_the_exit_code_says_whether_a_finding_reaches_fail_on(severity, fail_on, code):
    assert report_of(found(severity), fail_on=fail_on).exit_code == code


def test_nothing_observed_is_its_own_verdict_and_exit_code():
    report = report_of(trace=trace_of())

    assert (report.verdict, report.exit_code) == ("not-observed", 3)


def test_a_finding_stands_even_where_nothing_was_observed():
    report = report_of(found(), trace=trace_of())

    assert (report.verdict, report.exit_code) == ("unhealthy", 1)


def raised() -> Trace:
    detail = {"during": "training step 3", "type": "ValueError", "message": "bad"}
    events = (Event("exception", 3, None, detail),)
    return trace_of(observe("loss", "", [1.0], kind="model"), events=events)


def test_an_exception_of_the_target_is_told_and_makes_exit_code_3():
    report = report_of(found("warning"), trace=raised(), fail_on="warning")

    assert report.exit_code == 3
    assert report.error is not None
    assert report.error.model_dump() == {
        "during": "training step 3",
        "type": "ValueError",
        "message": "bad",
    }


def test_an_exception_that_an_error_names_is_a_finding():
    assert report_of(found(), trace=raised()).exit_code == 1


def test_a_run_that_stopped_without_a_finding_is_not_called_healthy():
    assert report_of(trace=raised()).verdict == "not-observed"


def test_raise_for_raises_at_and_above_the_severity_and_carries_the_report():
    report = report_of(found("warning"))

    report.raise_for("error")
    report.raise_for(Severity.ERROR)
    with pytest.raises(GradientHealthError, match="GL301 vanishing-gradient") as error:
        report.raise_for("warning")
    assert error.value.report is report


def test_raise_for_refuses_a_severity_that_is_none():
    with pytest.raises(ValueError, match="expected a severity"):
        report_of().raise_for("fatal")


def test_causes_are_what_nothing_explains():
    report = build_report(
        [Link(found(), symptoms=(2,)), Link(found("warning"), cause=1)], trace=seen()
    )

    assert [f.id for f in report.causes] == [1]
    assert [f.id for f in report.symptoms_of(report.findings[0])] == [2]


@pytest.mark.parametrize(
    ("name", "start"),
    [("r.json", '{\n  "schema"'), ("r.jsonl", '{"schema"'), ("r.txt", "✗ unhealthy")],
)
def test_save_writes_the_format_of_the_extension(tmp_path, name, start):
    sick_report().save(tmp_path / name)

    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_save_lists_the_extensions_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"\.json.*got .*report\.doc"):
        sick_report().save(tmp_path / "report.doc")


def test_printing_a_report_is_concise():
    assert str(sick_report()).splitlines()[0].startswith("deep_sigmoid.py:12: GL301 ")
    assert str(healthy_report()) == "healthy.py: healthy (40 steps, 36 rules)"


def test_modules_stand_in_execution_order_with_the_median_of_step_0_and_the_latest():
    trace = trace_of(
        observe("activation_std", "b", [9.0], depth=1, step=0),
        observe("activation_std", "a", [1.0, 2.0, 30.0], depth=0, step=0),
        observe("activation_std", "a", [4.0, 5.0], depth=0),
        observe("dead_fraction", "a:relu", [0.5], kind="relu", depth=0, module="a"),
        modules=[ModuleFacts("a", "Linear", 0), ModuleFacts("idle", "Linear", -1)],
    )

    rows = report_of(trace=trace).modules

    assert [(row.path, row.module) for row in rows] == [("a", "a"), ("a:relu", "a"), ("b", "b")]
    assert rows[0].metrics == {"activation_std": 2.0}
    assert rows[0].latest == {"activation_std": 5.0}
    assert rows[1].metrics == {"dead_fraction": 0.5}


def test_a_majority_of_non_finite_values_is_not_hidden_by_a_median():
    trace = trace_of(observe("activation_std", "a", [1.0, INF, INF], step=0))

    assert report_of(trace=trace).modules[0].metrics["activation_std"] == INF


def test_the_gradient_ratio_of_a_module_is_that_of_its_largest_matrix():
    trace = trace_of(
        observe("activation_std", "fc", [1.0], step=0),
        observe("gradient_ratio", "fc.bias", [7.0], kind="parameter", module="fc", step=0),
        observe("gradient_ratio", "fc.weight", [0.01], kind="parameter", module="fc", step=0),
        parameters=[
            ParameterFacts("fc.bias", (900,), module="fc"),
            ParameterFacts("fc.weight", (3, 3), module="fc"),
        ],
    )

    report = report_of(trace=trace)

    assert report.modules[0].metrics["gradient_ratio"] == 0.01
    assert [(row.path, row.shape) for row in report.parameters] == [
        ("fc.bias", (900,)),
        ("fc.weight", (3, 3)),
    ]


def test_series_have_one_value_a_step_and_show_the_first_fault_of_a_step():
    trace = trace_of(
        observe("loss", "", [1.0, 3.0], kind="model", step=0),
        observe("loss", "", [2.0, NAN], kind="model", step=1),
        observe("learning_rate", "", [0.1], kind="model"),
    )

    series = report_of(trace=trace).series

    assert series["loss"][0] == (0, 2.0)
    assert math.isnan(series["loss"][1][1])
    assert series["learning_rate"] == ((1, 0.1),)


def test_the_flow_is_that_of_the_middle_batch_of_the_first_step():
    flows = [
        *(Flow(0, Site("a", "Linear", 0), {"weights": float(n)}, norm=10.0**n) for n in (3, 1, 2)),
        Flow(1, Site("a", "Linear", 0), {"weights": 9.0}, norm=1e9),
    ]

    (row,) = report_of(trace=trace_of(flows=tuple(flows))).flow

    assert (row.norm, row.decades) == (100.0, {"weights": 2.0})


def test_evidence_becomes_plain_values():
    value = {"severity": Severity.ERROR, "places": ("a", {"b"}), 3: Source, "n": None}

    assert plain(value) == {
        "severity": "error",
        "places": ["a", ["b"]],
        "3": str(Source),
        "n": None,
    }


def test_all_of_a_finding_reaches_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cure = Cure("do", "x = 1", verified=True, before={"a": 1}, after={"a": 2})
    finding = found(
        module="fc",
        modules=("fc", "out"),
        parameter="fc.weight",
        step=3,
        help="do",
        cure=cure,
        source=Source(str(tmp_path / "model.py"), 7),
    )

    report = report_of(
        finding,
        explained=[Explained("GL301", "bn", "it cancels", "bias")],
        suppressed=[Suppressed(code="GL201", module="x", by="config")],
        target={"path": "model.py", "parameters": 3, "seed": 5, "assumed": {"steps": 40}},
    )

    (entry,) = data_of(report)["findings"]
    assert entry["source"] == {"file": "model.py", "line": 7}
    assert entry["cure"]["after"] == {"a": 2}
    assert entry["modules"] == ["fc", "out"]
    assert data_of(report)["target"]["assumed"] == {"steps": "40"}
    assert data_of(report)["target"]["seed"] == 5
    assert report.explained[0].because == "it cancels"


def test_a_report_is_made_read_and_drawn_without_torch():
    code = (
        "import sys; from gradlint.report import Report;"
        "from gradlint.reporters.sample import sick_report; from gradlint.reporters import render;"
        "[render([Report.from_json(sick_report().to_json())], f) for f in ('full', 'concise')];"
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0


@pytest.mark.parametrize(
    ("severities", "verdict", "code"),
    [
        ((), "not-observed", 70),
        (("warning",), "suspicious", 70),
        (("error",), "unhealthy", 1),
    ],
)
def test_what_a_fault_of_gradlints_own_left_unseen_is_not_called_well(severities, verdict, code):
    loop = LoopFacts(steps=20, backwards=20, observed=20, fault="KeyError: 'ours'")
    trace = trace_of(observe("loss", "", [1.0, 0.9]), loop=loop)

    report = report_of(*map(found, severities), trace=trace)

    assert (report.verdict, report.exit_code) == (verdict, code)
    assert (report.error is None) is (verdict == "unhealthy")
