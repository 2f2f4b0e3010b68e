"""Report: what is known at the end, in the format other people's scripts depend on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, ValidationError

from gradlint._version import __version__
from gradlint.comments import comment_notices
from gradlint.errors import GradientHealthError, GradlintError, UsageError
from gradlint.finding import Explained, Finding, Severity
from gradlint.report_history import history_of
from gradlint.report_json import decode, encode, plain
from gradlint.report_records import (
    WATCHING,
    CureRecord,
    ExplainedRecord,
    Failure,
    FlowRow,
    History,
    ModuleRow,
    ParameterRow,
    Record,
    ReportedFinding,
    SourceRecord,
    Summary,
    Suppressed,
    TargetRecord,
)
from gradlint.report_tables import flow_of, series_of, tables
from gradlint.trace import Trace

SCHEMA = "gradlint.report/1"
SCHEMA_FILE = Path(__file__).with_name("report_schema.json")
"""The JSON Schema that every report obeys."""

Verdict = Literal["healthy", "suspicious", "unhealthy", "not-observed"]


class Report(Record):
    """What gradlint found out about one target."""

    schema_id: Annotated[str, Field(alias="schema")] = SCHEMA
    versions: dict[str, str] = Field(default_factory=dict)
    target: TargetRecord = TargetRecord()
    verdict: Verdict = "not-observed"
    exit_code: int = 0
    findings: tuple[ReportedFinding, ...] = ()
    explained: tuple[ExplainedRecord, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
    suppressed: tuple[Suppressed, ...] = ()
    summary: Summary = Summary()
    modules: tuple[ModuleRow, ...] = ()
    parameters: tuple[ParameterRow, ...] = ()
    series: dict[str, tuple[tuple[int, float], ...]] = Field(default_factory=dict)
    flow: tuple[FlowRow, ...] = ()
    history: dict[str, History] = Field(default_factory=dict)
    """Some metrics at each weight layer from step to step."""
    error: Failure | None = None
    rules: tuple[str, ...] = ()
    """Codes of the rules that ran and were not skipped."""
    fail_on: str = "error"
    """The least severity that makes the exit code 1, or "never"."""
    notices: tuple[str, ...] = ()
    """What else the user is told: ignores that ignore nothing, accepted findings that are gone."""

    @property
    def causes(self) -> tuple[ReportedFinding, ...]:
        """The findings that no other finding explains, in order."""
        return tuple(found for found in self.findings if found.cause is None)

    def symptoms_of(self, cause: ReportedFinding) -> tuple[ReportedFinding, ...]:
        """The findings that `cause` explains."""
        return tuple(found for found in self.findings if found.id in cause.symptoms)

    def silencing(self, taken: Mapping[int, Suppressed]) -> Report:
        """Return the report without the findings whose ids are in `taken`.

        What only they explained stands for itself; verdict and exit code are made anew.
        """
        if not taken:
            return self
        kept = [found for found in self.findings if found.id not in taken]
        number = {found.id: i for i, found in enumerate(kept, start=1)}
        findings = tuple(
            found.model_copy(
                update={
                    "id": number[found.id],
                    "cause": number.get(found.cause or 0),
                    "because": found.because if found.cause in number else "",
                    "symptoms": tuple(number[i] for i in found.symptoms if i in number),
                }
            )
            for found in kept
        )
        observed = self.error is None and self.verdict != "not-observed"
        verdict = _verdict(findings, observed=observed)
        code = self.exit_code  # one above 1 is no matter of findings
        if code in (0, 1):
            code = _exit_code(findings, verdict, self.error, self.fail_on)
        return self.model_copy(
            update={
                "findings": findings,
                "suppressed": (*self.suppressed, *taken.values()),
                "verdict": verdict,
                "exit_code": code,
                "summary": self.summary.model_copy(update=_counts(findings)),
            }
        )

    def raise_for(self, severity: str | Severity = "error") -> None:
        """Raise if a finding is at or above `severity`.

        Raises:
            GradientHealthError: With the concise report as its message.
            ValueError: If `severity` is not "note", "warning" or "error".
        """
        limit = Severity.parse(severity) if isinstance(severity, str) else severity
        if any(found.severity >= limit for found in self.findings):
            raise GradientHealthError(f"{self.verdict}\n{self}", self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to `path`, in the format its extension names.

        Raises:
            UsageError: If no format has that extension.
        """
        from gradlint.reporters import format_of_file, render

        text = render([self], format_of_file(path))
        Path(path).write_text(text, encoding="utf-8")

    def __str__(self) -> str:
        from gradlint.reporters import render

        return render([self], "concise").rstrip("\n")

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON, pure ASCII, as `report_schema.json` describes it."""
        return json.dumps(encode(self.model_dump(by_alias=True)), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Return the report that `to_json` wrote.

        Raises:
            UsageError: If `text` is not a report.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or data.get("schema") != SCHEMA:
                raise UsageError(f"expected a report with schema {SCHEMA!r}, got something else")
            return cls.model_validate(decode(data))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"not a gradlint report: {place}: {first['msg']}") from error
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"not a gradlint report: {error}") from error


class Linked(Protocol):
    """A finding with its links; ids count from 1, in the order of the list."""

    @property
    def finding(self) -> Finding:
        """The finding itself."""

    @property
    def cause(self) -> int | None:
        """The id of the finding that explains it."""

    @property
    def symptoms(self) -> tuple[int, ...]:
        """The ids of the findings it explains."""


def build_report(
    findings: Sequence[Linked],
    *,
    trace: Trace,
    explained: Iterable[Explained] = (),
    skipped: Mapping[str, str] | None = None,
    suppressed: Iterable[Suppressed] = (),
    target: Mapping[str, Any] | None = None,
    fail_on: str | Severity = "error",
    rules_run: int | Sequence[str] = 0,
    error: Mapping[str, str] | None = None,
    notices: Iterable[str] = (),
) -> Report:
    """Put together what is known of one run.

    Args:
        findings: In the order of the report: causes first, symptoms after their cause.
        trace: What was measured; gives the tables, the series and the number of steps.
        explained: What exemptions explained away.
        skipped: Rule code to the reason why it could not speak.
        suppressed: What the user asked not to see.
        target: Fields of `TargetRecord`, and any others.
        fail_on: The least severity that makes the exit code 1, or "never".
        rules_run: The codes of the rules that spoke, or their number.
        error: `during`, `type` and `message` of the exception that ended the run; the
            trace's "exception" event by default. The exit code is then 3, unless an error
            names the reason.
        notices: What else the user is told.
    """
    reported = tuple(_reported(i, linked) for i, linked in enumerate(findings, start=1))
    failure = _failure(trace, error)
    suppressed = tuple(suppressed)
    fault = _fault(trace) if failure is None else None
    verdict = _verdict(reported, observed=len(trace) > 0 and failure is None and fault is None)
    if verdict == "unhealthy":
        fault = None  # what was found stands, whatever was not seen
    modules, parameters = tables(trace)
    codes = () if isinstance(rules_run, int) else tuple(rules_run)
    silenced = {(entry.code, entry.reason) for entry in suppressed}
    return Report(
        versions=versions(),
        target=TargetRecord.model_validate(plain(target or {})),
        verdict=verdict,
        exit_code=_exit_code(reported, verdict, failure, fail_on, fault=fault),
        findings=reported,
        explained=tuple(
            ExplainedRecord(code=e.code, module=e.module, because=e.because, name=e.name)
            for e in explained
        ),
        skipped=dict(skipped or {}),
        suppressed=suppressed,
        summary=Summary(
            **_counts(reported),
            steps=max(trace.steps, default=0),
            rules_run=rules_run if isinstance(rules_run, int) else len(codes),
        ),
        modules=modules,
        parameters=parameters,
        series=series_of(trace),
        flow=flow_of(trace.facts.flows),
        history=history_of(trace),
        error=failure or fault,
        rules=codes,
        fail_on=fail_on if isinstance(fail_on, str) else fail_on.label,
        notices=(*notices, *comment_notices(trace, silenced, codes)),
    )


def _counts(findings: Sequence[ReportedFinding]) -> dict[str, int]:
    return {level.label: sum(f.severity is level for f in findings) for level in Severity}


def failed_report(message: str, kind: str, exit_code: int, target: Mapping[str, Any]) -> Report:
    """Return the report of a target that could not be started or observed."""
    return Report(
        versions=versions(),
        target=TargetRecord.model_validate(plain(target)),
        verdict="not-observed",
        exit_code=exit_code,
        error=Failure(type=kind, message=message),
    )


def _reported(number: int, linked: Linked) -> ReportedFinding:
    found = linked.finding
    return ReportedFinding(
        id=number,
        code=found.code,
        rule=found.rule,
        severity=found.severity,
        module=found.module,
        modules=found.modules,
        parameter=found.parameter,
        source=None if found.source is None else SourceRecord.of(found.source),
        step=found.step,
        message=found.message,
        cause=linked.cause,
        because=getattr(linked, "because", ""),
        symptoms=tuple(linked.symptoms),
        evidence=plain(found.evidence),
        help=found.help,
        cure=CureRecord.model_validate(plain(asdict(found.cure))) if found.cure else None,
    )


def _failure(trace: Trace, error: Mapping[str, str] | None) -> Failure | None:
    if error is None:
        events = trace.events("exception")
        if not events:
            return None
        error = events[0].detail
    return Failure(**{key: str(error.get(key, "")) for key in ("during", "type", "message")})


def _fault(trace: Trace) -> Failure | None:
    """Return the fault of gradlint's own that ended the watching: nobody saw the other steps."""
    fault = trace.facts.loop.fault if trace.facts.loop is not None else ""
    if not fault:
        return None
    kind, _, text = fault.partition(": ")
    return Failure(during=WATCHING, type=kind, message=f"{text} (a fault of gradlint itself)")


def _verdict(findings: Sequence[ReportedFinding], *, observed: bool) -> Verdict:
    worst = max((found.severity for found in findings), default=Severity.NOTE)
    if worst is Severity.ERROR:
        return "unhealthy"
    if worst is Severity.WARNING:
        return "suspicious"
    return "healthy" if observed else "not-observed"


def _exit_code(
    findings: Sequence[ReportedFinding],
    verdict: Verdict,
    failure: Failure | None,
    fail_on: str | Severity,
    *,
    fault: Failure | None = None,
) -> int:
    named = verdict == "unhealthy"
    if fault is not None:
        return GradlintError.exit_code
    if verdict == "not-observed" or (failure is not None and not named):
        return 3
    if fail_on == "never":
        return 0
    limit = Severity.parse(fail_on) if isinstance(fail_on, str) else fail_on
    return int(any(found.severity >= limit for found in findings))


def versions() -> dict[str, str]:
    """Return the versions of gradlint, torch and Python, without importing torch."""
    torch = sys.modules.get("torch")
    try:
        found = str(torch.__version__) if torch else metadata.version("torch")
    except metadata.PackageNotFoundError:
        found = "none"
    return {
        "gradlint": __version__,
        "torch": found,
        "python": ".".join(str(part) for part in sys.version_info[:3]),
    }
