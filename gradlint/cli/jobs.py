"""The targets of one `gradlint check`, run one after another, and what becomes of each."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlint.cli.baselines import BaselineOptions, hold_against
from gradlint.cli.failures import say, sentence
from gradlint.cli.outputs import (
    Output,
    drawable,
    options_for,
    progress_bar,
    stdout_for_reports,
    write,
)
from gradlint.cli.settings import Overrides, settings_for
from gradlint.errors import UsageError
from gradlint.reporters import ALWAYS_WRITTEN, MACHINE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradlint.config import Config
    from gradlint.report import Report


@dataclass(frozen=True, slots=True)
class Look:
    """Where reports go, and how much they say."""

    outputs: tuple[Output, ...]
    color: str = "auto"
    quiet: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One target, with all it is checked with."""

    target: str
    config: Config
    options: Mapping[str, Any]
    baseline: Path | None = None


def jobs_for(
    targets: Sequence[str],
    overrides: Overrides,
    options: Mapping[str, Any],
    baseline: BaselineOptions = BaselineOptions(),  # noqa: B008 - frozen
) -> tuple[Job, ...]:
    """Return a job for each target; the settings' own target where none is given.

    Raises:
        UsageError: If there is no target at all, or a setting is unknown.
    """
    if targets:
        found = [(target, *settings_for(target, overrides)) for target in targets]
    else:
        config, file = settings_for(None, overrides)
        if config.target.path is None:
            raise UsageError("expected a TARGET: gradlint check model.py")
        found = [(config.target.path, config, file)]
    return tuple(
        _job(target, config, options, baseline.file_for(config, file))
        for target, config, file in found
    )


def _job(target: str, config: Config, options: Mapping[str, Any], baseline: Path | None) -> Job:
    given = config.target
    named = {
        "inputs": given.input,
        "loss": given.loss,
        "optimizer": given.optimizer,
        "lr": given.lr,
        "batch_size": given.batch_size,
    }
    chosen = {
        key: named[key] if key in named and not value else value for key, value in options.items()
    }
    if given.model is not None and target.endswith(".py"):
        target = f"{target}:{given.model}"
    given_options = {key: v for key, v in chosen.items() if v is not None}
    return Job(target, config, given_options, baseline)


def check_all(
    jobs: Sequence[Job],
    look: Look,
    baseline: BaselineOptions = BaselineOptions(),  # noqa: B008 - frozen
) -> int:
    """Check each target, write the reports; return the worst exit code."""
    reports: list[Report] = []
    started: list[bool] = []
    with stdout_for_reports() as stdout:
        with _progress(look) as progress:
            for job in jobs:
                try:
                    from gradlint.session import check_target

                    with _own_arguments(job.target):
                        report = check_target(
                            job.target, config=job.config, progress=progress, **job.options
                        )
                    started.append(True)
                except (Exception, SystemExit) as error:
                    report = _failed(job, error, look, several=len(jobs) > 1)
                    started.append(False)
                reports.append(report)
        reports = _held(jobs, reports, baseline)
        say_notices(reports, look)
        options = options_for(stdout, look.color, verbose=look.verbose, quiet=look.quiet)
        for output in look.outputs:
            always = output.name in ALWAYS_WRITTEN
            chosen = [r for r, ran in zip(reports, started, strict=True) if always or ran]
            if chosen:
                write(chosen, output, options, stdout)
    return max(report.exit_code for report in reports)


def _held(
    jobs: Sequence[Job], reports: Sequence[Report], baseline: BaselineOptions
) -> list[Report]:
    """Return `reports` without what the baselines of their jobs accept."""
    held = list(reports)
    for file in dict.fromkeys(job.baseline for job in jobs):
        if file is not None:
            places = [i for i, job in enumerate(jobs) if job.baseline == file]
            results = hold_against([reports[i] for i in places], file, baseline)
            for i, report in zip(places, results, strict=True):
                held[i] = report
    return held


def say_notices(reports: Sequence[Report], look: Look) -> None:
    """Say on stderr what the report on stdout does not: useless ignores, what is gone."""
    shown = any(output.file is None and output.name == "full" for output in look.outputs)
    if look.quiet or shown:
        return
    for notice in (notice for report in reports for notice in report.notices):
        say(notice)


def _failed(job: Job, error: BaseException, look: Look, *, several: bool) -> Report:
    """Say what went wrong, and return a report that says the same."""
    from gradlint.report import failed_report

    text, code = _told(job, error, look, several=several)
    return failed_report(text, type(error).__name__, code, {"path": job.target})


def _told(job: Job, error: BaseException, look: Look, *, several: bool) -> tuple[str, int]:
    if look.verbose:
        traceback.print_exception(error, file=sys.stderr)
    text, code = sentence(error)
    say(f"{job.target}: {text}" if several and job.target not in text else text)
    return text, code


def describe_all(jobs: Sequence[Job], look: Look) -> int:
    """Print what was found of each target and what would be assumed; return the exit code."""
    descriptions: list[tuple[str, Mapping[str, Any]]] = []
    codes = [0]
    with stdout_for_reports() as stdout:
        with _progress(look) as progress:
            for job in jobs:
                try:
                    from gradlint.session import describe_target

                    with _own_arguments(job.target):
                        found = describe_target(
                            job.target, config=job.config, progress=progress, **job.options
                        )
                    descriptions.append((job.target, found))
                except (Exception, SystemExit) as error:
                    codes.append(_told(job, error, look, several=len(jobs) > 1)[1])
        if look.outputs[0].name in MACHINE_FORMATS:
            from gradlint.report_json import encode, plain

            data = [encode(plain(found)) for _, found in descriptions]
            text = json.dumps(data[0] if len(jobs) == 1 and data else data, indent=2) + "\n"
        else:
            text = "\n".join(_listing(target, found) for target, found in descriptions)
        stdout.write(drawable(text, stdout))
        stdout.flush()
    return max(codes)


def _listing(target: str, found: Mapping[str, Any]) -> str:
    rows: dict[str, Any] = {"target": target}
    for key, value in found.items():
        if key == "assumed" and isinstance(value, Mapping):
            rows |= {f"assumed {name}": what for name, what in value.items()}
        elif value not in (None, "", (), {}):
            rows[key] = value
    wide = max(len(key) for key in rows)
    return "".join(f"{key:<{wide}}  {value}\n" for key, value in rows.items())


@contextmanager
def _progress(look: Look) -> Iterator[Callable[[str, float], None] | None]:
    with progress_bar(not look.quiet) as progress:
        if progress is not None:
            progress("loading torch", 0.0)
        yield progress


@contextmanager
def _own_arguments(target: str) -> Iterator[None]:
    """Hide gradlint's arguments from a target that parses its own when it is imported."""
    arguments = sys.argv
    sys.argv = [target.partition(":")[0]]
    try:
        yield
    finally:
        sys.argv = arguments
