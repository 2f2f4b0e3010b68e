"""Saved files on the command line: what becomes of each."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlint.cli.failures import say, sentence
from gradlint.cli.jobs import Look
from gradlint.cli.settings import Overrides, settings_for
from gradlint.errors import NotObservedError, UsageError

if TYPE_CHECKING:
    from gradlint.report import Report
    from gradlint.trace import Trace
    from gradlint.trace_reading import Recorded

ENDS = {
    "exception": "by an exception",
    "interrupted": "by an interruption",
    "killed": "without closing the trace: it was killed, or still goes on",
    "until": "at the step it was told to stop at",
    "fail-on": "at the first fault, as it was told",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A report, and whether it came out of the file or only says what was wrong with that."""

    report: Report
    read: bool = True


def judge_file(
    file: str, overrides: Overrides, look: Look, against: Sequence[Path], *, alone: bool
) -> tuple[Judged, ...]:
    """Return the reports in `file`, or on the trace in it; says on stderr what went wrong."""
    try:
        return tuple(Judged(found) for found in _reports(file, overrides, against))
    except Exception as error:
        from gradlint.report import failed_report

        if look.verbose:
            traceback.print_exception(error, file=sys.stderr)
        text, code = sentence(error)
        say(text if alone or file in text else f"{file}: {text}")
        return (Judged(failed_report(text, type(error).__name__, code, {"path": file}), False),)


def _reports(file: str, overrides: Overrides, against: Sequence[Path]) -> tuple[Report, ...]:
    from gradlint.saved import read_saved
    from gradlint.trace_reading import Recorded

    saved = read_saved(file)
    if isinstance(saved, Recorded):
        return (_judged(file, saved, overrides, against),)
    if against:
        raise UsageError(f"--against: expected a trace to compare, {file!r} is a report")
    asked = overrides.select is not None or overrides.ignore or overrides.extend_select
    if asked and overrides.notes:
        say(f"{file} is a report and shown as it is; only a trace is judged again")
    return tuple(with_fail_on(report, overrides.fail_on) for report in saved)


def _judged(file: str, saved: Recorded, overrides: Overrides, against: Sequence[Path]) -> Report:
    from pydantic import ValidationError

    from gradlint.judging import judge_trace
    from gradlint.report import versions
    from gradlint.report_json import plain
    from gradlint.report_records import TargetRecord

    trace = saved.trace
    config, _ = settings_for(_beside(saved), overrides)
    if against:
        from gradlint.health_samples import with_baseline

        trace = with_baseline(trace, [read_trace_file(base) for base in against])
    target = described(file, saved)
    try:
        TargetRecord.model_validate(plain(target))
    except ValidationError as error:
        raise UsageError(f"{file!r}: its target is not as a trace has it") from error
    report = judge_trace(trace, config, target)
    if not trace.observations and not report.findings:
        raise NotObservedError(f"{file!r} is a trace in which nothing was observed")
    recorded = {key: saved.versions[key] for key in ("torch", "python") if key in saved.versions}
    return report.model_copy(update={"versions": versions() | recorded})


def read_trace_file(file: str | Path) -> Trace:
    """Return the trace in `file`.

    Raises:
        UsageError: If it is none.
        NotObservedError: If it is empty.
    """
    from gradlint.saved import read_saved
    from gradlint.trace_reading import Recorded

    saved = read_saved(file)
    if not isinstance(saved, Recorded):
        raise UsageError(f"--against: expected a trace, {str(file)!r} is a report")
    if not saved.trace.observations:
        raise NotObservedError(f"{str(file)!r} is a trace in which nothing was observed")
    return saved.trace


def judged_file(file: str, overrides: Overrides) -> tuple[Report, Trace | None]:
    """Return the report in `file`, or the trace in it with what is said of it now.

    Raises:
        UsageError: If there is neither, or more than one.
        NotObservedError: If the trace is empty.
    """
    from gradlint.saved import read_saved
    from gradlint.trace_reading import Recorded

    saved = read_saved(file)
    if isinstance(saved, Recorded):
        return _judged(file, saved, overrides, ()), saved.trace
    if len(saved) != 1:
        raise UsageError(f"expected one report in {file!r}, got {len(saved)}")
    return saved[0], None


def described(file: str, saved: Recorded) -> dict[str, Any]:
    """Return what a report on a saved trace says of its target."""
    trace = saved.trace
    loop, root = trace.facts.loop, trace.modules.get("")
    assumed: dict[str, Any] = {}
    if loop is not None:
        assumed["looked at"] = f"{loop.observed} of {loop.steps} steps"
        if loop.ended:
            assumed["ended"] = ENDS.get(loop.ended, loop.ended)
    told = saved.target.get("assumed")
    return {
        "object": None if root is None else root.kind,
        "command": trace.facts.command,
        "parameters": sum(p.numel for p in trace.parameters.values()) or None,
        **saved.target,
        "assumed": assumed | told if isinstance(told, dict) else assumed,
        "trace": file,
    }


def _beside(saved: Recorded) -> str | None:
    """The target that was recorded, if it is here: its folder's settings hold."""
    path = saved.target.get("path")
    return path if isinstance(path, str) and Path(path.partition(":")[0]).is_file() else None


def with_fail_on(report: Report, fail_on: str | None) -> Report:
    """Return `report` with the exit code that `fail_on` gives it, if that is asked for."""
    from gradlint.finding import Severity

    if fail_on is None or report.exit_code not in (0, 1):
        return report
    failed = fail_on != "never" and any(
        found.severity >= Severity.parse(fail_on) for found in report.findings
    )
    return report.model_copy(update={"exit_code": int(failed), "fail_on": fail_on})
