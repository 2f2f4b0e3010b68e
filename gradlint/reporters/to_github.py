"""GitHub's workflow commands: annotations at the lines of a pull request, and the job summary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.reporters import to_markdown
from gradlint.reporters.base import Options
from gradlint.reporters.places import Place, clean, failure, place_of, target_name, told, where

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
SUMMARY = "GITHUB_STEP_SUMMARY"
LARGEST = 1_000_000
"""Bytes of a job summary; GitHub drops one of more than a mebibyte."""


def render(report: Report, _: Options) -> str:
    """Return one command a finding, causes first: GitHub shows ten of a kind in a step."""
    return "".join(f"{line}\n" for line in _commands(report))


def render_all(reports: Sequence[Report], options: Options) -> str:
    """Return the commands of all `reports`; the Markdown goes to the job's summary."""
    file = os.environ.get(SUMMARY)
    if file:
        _summarize(Path(file), "\n".join(to_markdown.render(r, options) for r in reports))
    return "".join(render(report, options) for report in reports)


def _summarize(file: Path, text: str) -> None:
    data = text.encode()
    # the annotations are worth having without a summary
    with suppress(OSError), file.open("ab") as stream:
        if stream.tell() + len(data) < LARGEST:
            stream.write(data)


def _commands(report: Report) -> Iterator[str]:
    if report.error is not None:
        yield _command("error", place_of(report), "gradlint", failure(report))
    for found in sorted(report.findings, key=lambda f: f.cause is not None):
        at = where(found)
        title = f"{found.code} {found.rule}" + (f" at {at}" if at else "")
        place = place_of(report, found.source)
        yield _command(_COMMANDS[found.severity], place, title, told(found))
    for notice in report.notices:
        yield _command("notice", place_of(report), f"gradlint {target_name(report)}", notice)


def _command(kind: str, place: Place, title: str, message: str) -> str:
    properties = f"file={_value(place.file)},line={place.line},title={_value(title)}"
    return f"::{kind} {properties}::{_data(clean(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _value(text: str) -> str:
    return _data(clean(text)).replace(":", "%3A").replace(",", "%2C")
