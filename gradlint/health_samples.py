"""Samples: the numbers of a trace or a report that `health` compares, by metric and place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gradlint.health import MEASURES, Samples, levels, pooled
from gradlint.trace import Trace

if TYPE_CHECKING:
    from gradlint.report import Report
    from gradlint.report_records import ModuleRow, ParameterRow

MATRICES = frozenset({"gradient_ratio", "update_to_weight_ratio"})
"""Read at parameters; of vectors (biases start at 0) they say little."""


def samples_of(trace: Trace) -> Samples:
    """Return what `trace` holds of the metrics in `MEASURES`."""
    found: Samples = {}
    for seen in trace:
        if seen.metric in MEASURES and _counts(trace, seen.metric, seen.site.path):
            found.setdefault((seen.metric, seen.site.path), []).append((seen.step, seen.value))
    for flow in trace.facts.flows:
        place = ("gradient_decades", flow.site.path)
        found.setdefault(place, []).append((flow.step, abs(flow.blamed)))
    return found


def _counts(trace: Trace, metric: str, path: str) -> bool:
    if metric in MATRICES:
        facts = trace.parameters.get(path)
        return facts is None or len(facts.shape) > 1
    module = trace.modules.get(path)
    return module is None or module.leaf or metric == "loss"


def samples_of_report(report: Report) -> Samples:
    """Return what `report` holds of them: one value at the start, one at the end."""
    found: Samples = {}
    last = report.summary.steps
    for step, value in report.series.get("loss", ()):
        found.setdefault(("loss", ""), []).append((step, value))
    rows: list[tuple[ModuleRow | ParameterRow, bool]] = [
        *((row, False) for row in report.modules if row.leaf),
        *((row, True) for row in report.parameters if len(row.shape) != 1),
    ]
    for row, parameter in rows:
        for metric in MEASURES:
            if (metric in MATRICES) is not parameter:
                continue
            for step, values in ((0, row.metrics), (last, row.latest)):
                if metric in values:
                    found.setdefault((metric, row.path), []).append((step, values[metric]))
    for flow in report.flow:
        blamed = (v for k, v in flow.decades.items() if k not in ("structural", "loss"))
        found["gradient_decades", flow.path] = [(0, abs(sum(blamed)))]
    return found


def last_step(samples: Iterable[Samples]) -> int:
    """Return the last step that all of `samples` reach."""
    ends = [max((s for seen in one.values() for s, _ in seen), default=0) for one in samples]
    return min(ends, default=0)


def with_baseline(trace: Trace, bases: Sequence[Trace]) -> Trace:
    """Return `trace` with what GL910 compares it with: the levels of all `bases` as one."""
    samples = [samples_of(base) for base in bases]
    until = last_step([samples_of(trace), *samples])
    known = pooled([levels(one, until) for one in samples])
    baseline = {"levels": tuple(known.values()), "until": until, "runs": len(bases)}
    probes = {**trace.facts.probes, "baseline": baseline}
    return trace.but(facts=replace(trace.facts, probes=probes))
