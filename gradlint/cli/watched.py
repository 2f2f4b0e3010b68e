"""One script under the watcher: run, judged, reported; the exit code it leads to."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from gradlint.cli.baselines import BaselineOptions, hold_against
from gradlint.cli.failures import INTERRUPTED, say, sentence
from gradlint.cli.jobs import Look
from gradlint.cli.live_view import live_view
from gradlint.cli.outputs import Output, options_for, write
from gradlint.entry import Entry
from gradlint.errors import GradlintError, NotObservedError, UsageError
from gradlint.reporters import ALWAYS_WRITTEN

if TYPE_CHECKING:
    from gradlint.config import Config
    from gradlint.report import Report
    from gradlint.target.script import Outcome
    from gradlint.watching import Watcher

RAISED = 3


@dataclass(frozen=True, slots=True)
class Watching:
    """How a script is watched."""

    config: Config
    every: int | Literal["auto"] = "auto"
    budget: float = 0.02
    stop_on: str | None = None
    until: int | None = None
    trace: Path | None = None
    live: bool = False
    accepted: Path | None = None
    """File of the baseline, wherever the script goes."""
    accepting: BaselineOptions = field(default_factory=BaselineOptions)


def run_watched(entry: Entry, watching: Watching, look: Look) -> int:
    """Run `entry` under a watcher, write the report to stderr and files; return the exit code.

    Of the ranks of a distributed run, the first alone reports; the others end as their
    script did.
    """
    from gradlint.target.script import run_script
    from gradlint.target.signals import without_end
    from gradlint.watching import Stop, Watcher

    first = os.environ.get("RANK", "0") == "0"
    stderr = sys.stderr if sys.stderr is not None else open(os.devnull, "w")  # noqa: SIM115
    target = {"path": entry.name, "command": "run"}
    with ExitStack() as reporting:
        with (
            live_view(watching.live and first) as view,
            Watcher(
                discover=True,
                every=watching.every,
                budget=watching.budget,
                fail_on=watching.stop_on,
                until=watching.until,
                trace=watching.trace,
                config=watching.config,
                target=target,
                alarm=first,
                on_step=None if view is None else view.moved,
            ) as watcher,
        ):
            _leave_children_alone(watcher)
            outcome = run_script(entry, Stop)
            if first:
                reporting.enter_context(without_end())
        atexit.register(outcome.reinstate)
        if stderr.closed:  # by the script
            stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        reporting.enter_context(redirect_stderr(stderr))
        try:
            report, outputs = watcher.finish(outcome.ended, outcome.error), look.outputs
        except GradlintError as error:
            if look.verbose:
                traceback.print_exception(error, file=stderr)
            report = _not_observed(watcher.loop.failure or error, target)
            outputs = tuple(o for o in look.outputs if o.name in ALWAYS_WRITTEN)
        if not first:
            return outcome.status
        if watcher.loop.failure is not None:
            if look.verbose:
                traceback.print_exception(watcher.loop.failure, file=stderr)
            say(f"watching ended early: {sentence(watcher.loop.failure)[0]}")
        report = _held(with_outcome(report, outcome, entry.name), watching)
        _write(report, outputs, look, stderr)
        if report.error is not None and all(output.file for output in outputs):
            place = "" if entry.name in report.error.message else f"{entry.name}: "
            say(f"{place}{report.error.message}")
    return report.exit_code


def _leave_children_alone(watcher: Watcher) -> None:
    """Watch nothing in processes that the script forks off: each would stop by itself."""
    if not hasattr(os, "register_at_fork"):
        return
    known = weakref.ref(watcher)

    def stop() -> None:
        here = known()
        if here is not None:
            with suppress(Exception):
                here.loop.fail(ChildProcessError("forked"))

    os.register_at_fork(after_in_child=stop)


def with_outcome(report: Report, outcome: Outcome, name: str) -> Report:
    """Return `report` with how the script ended, if that was not well, and the exit code."""
    if outcome.status == 0:
        return report
    from gradlint.report_records import WATCHING, Failure

    told = report.error or Failure()
    if outcome.ended == "interrupted":
        kind, text = "KeyboardInterrupt", "the script was interrupted"
    elif outcome.ended == "killed":
        kind, text = "SIGTERM", "the script was told to end"
    elif outcome.ended == "exception" and outcome.error is not None:
        kind = type(outcome.error).__name__
        text = next(iter(str(outcome.error).strip().splitlines()), "no message")
    else:
        kind, text = "SystemExit", f"{name} ended itself"
    message = f"{text} (the script's status: {outcome.status})"
    if told.type == NotObservedError.__name__:
        message += f"; {told.message}"
    during = "" if told.during == WATCHING else told.during
    error = Failure(during=during, type=kind, message=message)
    changes: dict[str, Any] = {"error": error, "exit_code": RAISED}
    if outcome.ended == "interrupted":
        changes["exit_code"] = INTERRUPTED
    elif outcome.ended != "killed" and report.verdict == "healthy":
        changes["verdict"] = "not-observed"  # it was to go on, and nobody knows how
    return report.model_copy(update=changes)


def _not_observed(error: BaseException, target: dict[str, str]) -> Report:
    """Return the report of a script in which there was nothing to see."""
    from gradlint.report import failed_report

    text, code = sentence(error)
    if isinstance(error, NotObservedError):
        text = "no training was seen: no model's loss went backward in this process"
    return failed_report(text, type(error).__name__, code, target)


def _held(report: Report, watching: Watching) -> Report:
    """Return `report` without what the baseline accepts; the run is told even if that fails."""
    if watching.accepted is None:
        return report
    try:
        return hold_against([report], watching.accepted, watching.accepting)[0]
    except UsageError as error:
        say(sentence(error)[0])
        return report.model_copy(update={"exit_code": max(report.exit_code, error.exit_code)})


def _write(report: Report, outputs: Sequence[Output], look: Look, stderr: TextIO) -> None:
    options = options_for(stderr, look.color, verbose=look.verbose, quiet=look.quiet)
    for output in sorted(outputs, key=lambda output: output.file is not None):
        # Where stderr cannot be written, nobody is left to be told.
        with suppress(UsageError, OSError, ValueError) if output.file is None else nullcontext():
            write([report], output, options, stderr)
