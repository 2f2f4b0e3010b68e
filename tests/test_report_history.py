"""What a report says of each step: history and series."""

from __future__ import annotations

import math

from gradlint.report import Report, build_report
from gradlint.trace import MODEL, Observation, ParameterFacts, Site, Trace


def test_clipping_is_reported_where_its_limit_changes():
    limits = [1.0] * 5 + [0.5] * 5
    trace = Trace([Observation("clipping_limit", MODEL, i, v) for i, v in enumerate(limits)])

    assert build_report([], trace=trace).series["clipping_limit"] == ((0, 1.0), (5, 0.5), (9, 0.5))


def test_history_is_layers_by_steps_bounded_with_both_ends_and_the_first_fault():
    seen = [
        Observation(
            "gradient_ratio",
            Site(f"l{i}.weight", "parameter", i, f"l{i}"),
            step,
            math.nan if (i, step) == (0, 77) else 0.01,
        )
        for i in range(200)
        for step in range(100)
    ]
    facts = {
        f"l{i}.weight": ParameterFacts(f"l{i}.weight", (4, 4), module=f"l{i}") for i in range(200)
    }
    report = build_report([], trace=Trace(seen, parameters=facts))

    history = report.history["gradient_ratio"]
    assert (len(history.steps), len(history.rows)) == (40, 96)
    assert next(iter(history.rows)) == "l0"
    assert [*history.rows][-1] == "l199"
    broken = [step for step, v in zip(history.steps, history.rows["l0"], strict=True) if v != v]
    assert len(broken) == 1
    assert broken[0] <= 77 < broken[0] + 3
    again = Report.from_json(report.to_json()).history["gradient_ratio"]
    assert math.isnan(again.rows["l0"][history.steps.index(broken[0])])


def test_a_single_look_has_no_history():
    seen = Observation("gradient_ratio", Site("l.weight", "parameter", 0, "l"), 0, 1.0)
    facts = {"l.weight": ParameterFacts("l.weight", (4, 4), module="l")}

    assert build_report([], trace=Trace([seen], parameters=facts)).history == {}
