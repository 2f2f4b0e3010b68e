"""Where reports go: formats, files, the terminal's width and colors; stdout kept for them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gradlint.errors import UsageError
from gradlint.reporters import Options, formats, no_such_format, render

if TYPE_CHECKING:
    from gradlint.report import Report

COLORS = ("auto", "always", "never")
WIDEST = 100
"""Columns a report fills at most; lines longer than that are hard to read."""


@dataclass(frozen=True, slots=True)
class Output:
    """A format, and the file it goes to; None is stdout."""

    name: str
    file: Path | None = None


def parse_outputs(words: Sequence[str]) -> tuple[Output, ...]:
    """Return what ``name`` or ``name:FILE`` in each of `words` stand for.

    Raises:
        UsageError: If a format is unknown, a file's folder missing, or two want stdout.
    """
    outputs = tuple(_parse_output(word) for word in words or ("full",))
    if sum(output.file is None for output in outputs) > 1:
        raise UsageError(
            "--format: only one format can go to stdout; give the others a file: "
            f"-f {outputs[-1].name}:FILE"
        )
    return outputs


def _parse_output(word: str) -> Output:
    name, colon, file = word.partition(":")
    if name not in formats():
        raise UsageError(f"--format: {no_such_format(name)}")
    if colon and not file:
        raise UsageError(f"--format: expected a file after {word!r}")
    path = Path(file) if file and file != "-" else None
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UsageError(f"--format: cannot write to {str(path)!r}: no such folder, or a folder")
    return Output(name, path)


def write(reports: Sequence[Report], output: Output, options: Options) -> None:
    """Write `reports` to `output`; a file gets no color, and a terminal's usual width.

    Raises:
        UsageError: If the file cannot be written.
    """
    if output.file is None:
        sys.stdout.write(render(reports, output.name, options))
        sys.stdout.flush()
        return
    plain = Options(verbose=options.verbose, quiet=options.quiet)
    try:
        output.file.write_text(render(reports, output.name, plain), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {str(output.file)!r}: {error.strerror}") from error


def options_for(stream: TextIO, color: str, *, verbose: bool, quiet: bool) -> Options:
    """Return how a report looks on `stream`: as wide and as colorful as it can show."""
    columns = shutil.get_terminal_size((80, 24)).columns
    return Options(
        width=max(40, min(columns, WIDEST)),
        color=color == "always" or (color == "auto" and _colorful(stream)),
        unicode=_can_draw(stream),
        verbose=verbose,
        quiet=quiet,
    )


def _colorful(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def _can_draw(stream: TextIO) -> bool:
    try:
        "█●✗−".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@contextmanager
def stdout_for_reports() -> Iterator[None]:
    """Send what the target prints to stderr, also what its subprocesses and libraries print."""
    sys.stdout.flush()
    saved = None
    try:
        if sys.__stdout__ is not None and sys.__stdout__.fileno() == 1:
            saved = os.dup(1)
            os.dup2(2, 1)
    except (OSError, ValueError):  # closed, or not a file
        saved = None
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[str, float], None] | None]:
    """Draw a bar on stderr, if `wanted` and it is a terminal; yields what moves it."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description:<20}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def move(phase: str, share: float) -> None:
            bar.update(task, description=phase, completed=share)

        yield move
