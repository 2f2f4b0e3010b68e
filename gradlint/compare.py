"""compare: two runs, finding by finding and number by number. No torch, no text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from gradlint.finding import Severity
from gradlint.health import (
    MEASURES,
    Level,
    Place,
    Samples,
    change,
    levels,
)
from gradlint.health_samples import last_step, samples_of, samples_of_report
from gradlint.report import Report
from gradlint.report_json import encode
from gradlint.report_records import Level as SeverityLevel
from gradlint.report_records import Record, ReportedFinding, TargetRecord
from gradlint.trace import Trace

SCHEMA = "gradlint.compare/1"

Status = Literal["worse", "better", "new", "gone", "changed", "same"]
Outcome = Literal["worse", "better", "mixed", "same"]


class Side(Record):
    """One of the two: what it is, what was said of it, how long it was."""

    target: TargetRecord = TargetRecord()
    verdict: str = "not-observed"
    steps: int = 0


class FindingChange(Record):
    """What became of the findings of one rule at one module."""

    status: Status
    code: str
    rule: str
    module: str | None = None
    severity: SeverityLevel
    before: SeverityLevel | None = None
    message: str
    cause: bool = True
    """Whether no other finding explains it."""


class MetricChange(Record):
    """What became of one metric at one place.

    `spread` is the base's, from step to step, on the scale of comparison (decades where
    `decades`, else as measured); `times` is the change to the worse in units of what counts.
    """

    status: Status
    metric: str
    place: str
    base: float | None = None
    new: float | None = None
    spread: float | None = None
    times: float = 0.0
    decades: bool = False


class Comparison(Record):
    """What got worse, what got better, what is new, what is gone."""

    schema_id: Annotated[str, Field(alias="schema")] = SCHEMA
    outcome: Outcome = "same"
    exit_code: int = 0
    base: Side = Side()
    new: Side = Side()
    until: int = 0
    """The last step both reach; nothing later is compared."""
    findings: tuple[FindingChange, ...] = ()
    metrics: tuple[MetricChange, ...] = ()

    def to_json(self, indent: int | None = 2) -> str:
        """Return the comparison as JSON, pure ASCII."""
        return json.dumps(encode(self.model_dump(by_alias=True)), indent=indent, allow_nan=False)


def compare(
    base: Report,
    new: Report,
    *,
    base_trace: Trace | None = None,
    new_trace: Trace | None = None,
    fail_on: str = "error",
) -> Comparison:
    """Compare two runs.

    Args:
        base: What was said of the one.
        new: What was said of the other.
        base_trace: What was measured of the one; without it, its report's few numbers are
            compared, whose spread is not known.
        new_trace: The same of the other.
        fail_on: The least severity of what got worse that makes the exit code 1, or
            "never". A metric counts as a warning, as GL910 does.
    """
    samples: tuple[Samples, Samples]
    if base_trace is not None and new_trace is not None:
        samples = samples_of(base_trace), samples_of(new_trace)
    else:
        samples = samples_of_report(base), samples_of_report(new)
    until = last_step(samples)
    metrics = tuple(_metrics(levels(samples[0], until), levels(samples[1], until)))
    findings = tuple(_findings(base.findings, new.findings))
    return Comparison(
        outcome=_outcome([*findings, *metrics]),
        exit_code=_exit_code(findings, metrics, fail_on),
        base=Side(target=base.target, verdict=base.verdict, steps=base.summary.steps),
        new=Side(target=new.target, verdict=new.verdict, steps=new.summary.steps),
        until=until,
        findings=findings,
        metrics=metrics,
    )


def _findings(
    base: Sequence[ReportedFinding], new: Sequence[ReportedFinding]
) -> Iterable[FindingChange]:
    """Match findings by rule and module; one that names more modules now is the same one."""
    left = list(base)
    for found in new:
        before = next((old for old in left if _same_place(old, found)), None)
        if before is not None:
            left.remove(before)
        yield _finding(found, before)
    for old in left:
        yield _finding(old, None).model_copy(update={"status": "gone", "before": old.severity})


def _same_place(old: ReportedFinding, found: ReportedFinding) -> bool:
    if old.code != found.code:
        return False
    if (old.module, old.parameter) == (found.module, found.parameter):
        return True
    return bool(set(old.modules) & set(found.modules))


def _finding(found: ReportedFinding, before: ReportedFinding | None) -> FindingChange:
    status: Status = "new"
    if before is not None:
        status = "same"
        if found.severity != before.severity:
            status = "worse" if found.severity > before.severity else "better"
    return FindingChange(
        status=status,
        code=found.code,
        rule=found.rule,
        module=found.module,
        severity=found.severity,
        before=None if before is None else before.severity,
        message=found.message,
        cause=found.cause is None,
    )


def _metrics(base: Mapping[Place, Level], new: Mapping[Place, Level]) -> Iterable[MetricChange]:
    order = list(MEASURES)
    for metric, place in sorted({**base, **new}, key=lambda key: order.index(key[0])):
        old, now = base.get((metric, place)), new.get((metric, place))
        times = 0.0 if old is None or now is None else change(old, now)
        yield MetricChange(
            status=_status(old, now, times),
            metric=metric,
            place=place,
            base=None if old is None else old.value,
            new=None if now is None else now.value,
            spread=None if old is None else old.spread,
            times=times,
            decades=MEASURES[metric].log,
        )


def _status(base: Level | None, new: Level | None, times: float) -> Status:
    if base is None:
        return "new"
    if new is None:
        return "gone"
    if abs(times) > 1:
        return "worse" if times > 0 else "better"
    if base.broken or new.broken:
        return "same"
    moved = abs(new.scaled - base.scaled) > base.limit
    return "changed" if moved else "same"


def _outcome(changes: Sequence[FindingChange | MetricChange]) -> Outcome:
    worse = better = False
    for each in changes:
        finding = isinstance(each, FindingChange)
        heavy = not isinstance(each, FindingChange) or each.severity > Severity.NOTE
        worse |= heavy and (each.status == "worse" or (finding and each.status == "new"))
        better |= heavy and (each.status == "better" or (finding and each.status == "gone"))
    if worse and better:
        return "mixed"
    return "worse" if worse else "better" if better else "same"


def _exit_code(
    findings: Sequence[FindingChange], metrics: Sequence[MetricChange], fail_on: str
) -> int:
    if fail_on == "never":
        return 0
    limit = Severity.parse(fail_on)
    worse: list[Severity] = [f.severity for f in findings if f.status in ("new", "worse")]
    worse += [Severity.WARNING for metric in metrics if metric.status == "worse"]
    return int(any(severity >= limit for severity in worse))
