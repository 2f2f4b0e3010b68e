"""Where reports go: formats, files, the terminal's width and colors; stdout kept for them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
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


def write(reports: Sequence[Report], output: Output, options: Options, stdout: TextIO) -> None:
    """Write `reports` to `output`; a file gets no color, and a terminal's usual width.

    Raises:
        UsageError: If the file or stdout cannot be written.
    """
    if output.file is None:
        text = drawable(render(reports, output.name, options), stdout)
        try:
            stdout.write(text)
            stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"cannot write the report to stdout: {error.strerror}") from error
        return
    plain = Options(verbose=options.verbose, quiet=options.quiet)
    try:
        output.file.write_text(render(reports, output.name, plain), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {str(output.file)!r}: {error.strerror}") from error


def drawable(text: str, stream: TextIO) -> str:
    """Return `text` with question marks for what `stream` has no characters for."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


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
def stdout_for_reports() -> Iterator[TextIO]:
    """Keep stdout for the reports; yields the stream they are written to.

    Whatever the target prints goes to stderr, also what its threads, its subprocesses and
    libraries print, while a report is being written, too.
    """
    own: TextIO = sys.stdout if sys.stdout is not None else open(os.devnull, "w")  # noqa: SIM115
    own.flush()
    saved = _lend_stdout()
    try:
        with redirect_stdout(sys.stderr):
            if saved is None or own is not sys.__stdout__:
                yield own
                return
            stream = os.fdopen(os.dup(saved), "w", encoding=own.encoding, errors=own.errors)
            try:
                yield stream
            finally:
                with suppress(OSError):  # said already by who wrote it
                    stream.close()
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


def _lend_stdout() -> int | None:
    """Lead the process's stdout to its stderr; return a descriptor of what stdout was."""
    try:
        if sys.__stdout__ is None or sys.__stdout__.fileno() != 1:
            return None
        os.fstat(2)
        saved = os.dup(1)
    except (OSError, ValueError):  # closed, or not a file
        return None
    os.dup2(2, 1)
    return saved


def give_up_stdout() -> None:
    """Lead stdout to stderr for good: what the target does at exit is no part of the report."""
    try:
        sys.stdout.flush()
        os.dup2(2, 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (OSError, ValueError, AttributeError):  # closed, or never there
        return
    sys.stdout = sys.stderr


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[str, float], None] | None]:
    """Draw a bar on stderr, if `wanted` and it is a terminal; yields what moves it."""
    if not wanted or sys.stderr is None or not sys.stderr.isatty():
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
