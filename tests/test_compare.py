"""compare: what becomes of findings and of numbers from one run to another."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gradlint.compare import Comparison, compare
from gradlint.finding import Finding, Severity
from gradlint.report import Report, build_report
from gradlint.reporters import Options
from gradlint.reporters.comparison import render
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.testing import observe, trace_of
from gradlint.trace import Trace


class Link:
    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.cause: int | None = None
        self.symptoms: tuple[int, ...] = ()


def found(code: str = "GL201", severity: str = "warning", module: str | None = "a", **changes: Any):
    return Finding(
        code=code,
        rule="dead-units",
        severity=Severity.parse(severity),
        message="units never fired",
        module=module,
        modules=() if module is None else (module,),
    ).but(**changes)


def with_loss(level: float, noise: float = 0.0) -> Trace:
    values = [level + noise * math.sin(7 * i) for i in range(40)]
    start = observe("loss", "", [2.0], kind="model", step=0)
    return trace_of(start, observe("loss", "", values, kind="model"))


def report_of(*findings: Finding, trace: Trace | None = None) -> Report:
    return build_report([Link(f) for f in findings], trace=trace or with_loss(1.0))


def statuses(comparison: Comparison) -> dict[tuple[str, str | None], str]:
    return {(f.code, f.module): f.status for f in comparison.findings}


def test_a_run_is_the_same_as_itself():
    for report in (sick_report(), healthy_report()):
        same = compare(report, report, fail_on="note")

        assert (same.outcome, same.exit_code) == ("same", 0)
        assert {f.status for f in same.findings} <= {"same"}
        assert {m.status for m in same.metrics} == {"same"}


def test_findings_are_matched_by_rule_and_module():
    base = report_of(found(), found(module="b"), found("GL301", module=None))
    new = report_of(found(), found(module="c"), found("GL301", module=None))

    assert statuses(compare(base, new)) == {
        ("GL201", "a"): "same",
        ("GL201", "c"): "new",
        ("GL201", "b"): "gone",
        ("GL301", None): "same",
    }


def test_a_finding_that_names_more_modules_is_the_same_one():
    base = report_of(found(modules=("a", "b")))
    new = report_of(found(module="b", modules=("b", "c")))

    assert statuses(compare(base, new)) == {("GL201", "b"): "same"}


@pytest.mark.parametrize(
    ("before", "after", "status", "outcome"),
    [
        ("warning", "error", "worse", "worse"),
        ("error", "warning", "better", "better"),
        ("note", "note", "same", "same"),
    ],
)
def test_a_graver_finding_is_worse(before, after, status, outcome):
    comparison = compare(report_of(found(severity=before)), report_of(found(severity=after)))

    assert statuses(comparison) == {("GL201", "a"): status}
    assert comparison.outcome == outcome


def test_new_and_gone_together_are_mixed_and_notes_do_not_decide():
    base, new = report_of(found()), report_of(found(module="b"))
    noted = report_of(found(severity="note"))

    assert compare(base, new).outcome == "mixed"
    assert compare(report_of(), noted).outcome == "same"
    assert compare(noted, report_of()).outcome == "same"


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("error", "error", 1),
        ("warning", "error", 0),
        ("warning", "warning", 1),
        ("note", "warning", 0),
        ("note", "note", 1),
        ("error", "never", 0),
    ],
)
def test_what_is_new_makes_the_exit_code(severity, fail_on, code):
    new = report_of(found(severity=severity))

    assert compare(report_of(), new, fail_on=fail_on).exit_code == code
    assert compare(new, report_of(), fail_on=fail_on).exit_code == 0
    assert compare(new, new, fail_on=fail_on).exit_code == 0


def compared(base: Trace, new: Trace, **options: Any) -> Comparison:
    return compare(
        report_of(trace=base),
        report_of(trace=new),
        base_trace=base,
        new_trace=new,
        **options,
    )


@pytest.mark.parametrize(
    ("base", "new", "status"),
    [
        (0.5, 1.5, "worse"),
        (1.5, 0.5, "better"),
        (0.5, 0.52, "same"),
        (0.5, math.inf, "worse"),
        (math.nan, 0.5, "better"),
        (math.nan, math.inf, "same"),
    ],
)
def test_a_number_is_worse_or_better_beyond_its_spread(base, new, status):
    (loss,) = compared(with_loss(base), with_loss(new)).metrics

    assert (loss.metric, loss.place, loss.status) == ("loss", "", status)


def test_a_worse_number_weighs_as_a_warning():
    base, new = with_loss(0.5), with_loss(1.5)

    assert compared(base, new, fail_on="error").exit_code == 0
    assert compared(base, new, fail_on="warning").exit_code == 1
    assert compared(new, base, fail_on="warning").exit_code == 0


def test_the_noise_of_the_base_is_the_yardstick():
    assert compared(with_loss(0.5, 0.2), with_loss(0.9)).metrics[0].status == "same"
    assert compared(with_loss(0.5, 0.01), with_loss(0.9)).metrics[0].status == "worse"


def test_a_number_that_moved_within_its_band_is_changed_and_nothing_more():
    def with_std(level: float) -> Trace:
        return trace_of(observe("activation_std", "fc1", [level] * 40))

    comparison = compared(with_std(0.55), with_std(1.9))

    assert [m.status for m in comparison.metrics] == ["changed"]
    assert (comparison.outcome, comparison.exit_code) == ("same", 0)


def test_places_of_one_side_alone_are_new_or_gone_and_decide_nothing():
    base = trace_of(observe("activation_std", "fc1", [1.0] * 40))
    new = trace_of(observe("activation_std", "fc2", [1.0] * 40))

    comparison = compared(base, new)

    assert [(m.place, m.status) for m in comparison.metrics] == [("fc1", "gone"), ("fc2", "new")]
    assert comparison.outcome == "same"


def test_reports_are_compared_by_the_numbers_they_hold():
    base = trace_of(
        observe("loss", "", [2.0, *[0.5] * 40], kind="model", start=0),
        observe("dead_fraction", "act", [0.0, 0.0], kind="ReLU", start=0),
    )
    new = trace_of(
        observe("loss", "", [2.0, *[1.5] * 40], kind="model", start=0),
        observe("dead_fraction", "act", [0.0, 0.9], kind="ReLU", start=0),
    )

    comparison = compare(report_of(trace=base), report_of(trace=new))

    assert {m.metric: m.status for m in comparison.metrics} == {
        "loss": "worse",
        "dead_fraction": "worse",
    }


def test_the_json_is_strict_and_says_what_it_is():
    text = compared(with_loss(0.5), with_loss(math.nan)).to_json()

    data = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    assert data["schema"] == "gradlint.compare/1"
    assert data["outcome"] == "worse"
    assert data["metrics"][0]["new"] is None
    assert data["metrics"][0]["new_nonfinite"] == "nan"


def test_the_text_begins_with_what_got_worse():
    base, new = with_loss(0.5, 0.01), with_loss(1.5)
    text = render(
        compare(
            report_of(found(module="b"), trace=base),
            report_of(found("GL301", "error"), trace=new),
            base_trace=base,
            new_trace=new,
        ),
        Options(),
    )
    lines = text.splitlines()

    assert lines[0] == "▲ mixed"
    assert next(line for line in lines if "GL" in line).split()[:3] == ["new", "error", "GL301"]
    assert any(line.split()[:4] == ["worse", "loss", "model", "0.5"] for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_text_is_ascii_where_nothing_else_can_be_drawn():
    text = render(compare(healthy_report(), sick_report()), Options(unicode=False, verbose=True))

    assert text.isascii()
