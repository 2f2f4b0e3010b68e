"""What python does with an exception that a script does not catch."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_RUNNER = str(Path(__file__).with_name("script.py"))


def status_of(error: SystemExit) -> int:
    """Return the status a process ends with by `error`; say what it was told to say."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with suppress(Exception):
        print(error.code, file=sys.stderr)  # noqa: T201 - as python does
    return 1


def tell(error: BaseException) -> int:
    """Let the process's hook tell of an uncaught exception; return the status it leads to."""
    _hide_own_frames(error, set())
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit as end:
        return status_of(end)
    except BaseException as fault:
        _hide_own_frames(fault, {id(error)})
        with suppress(Exception):
            print("Error in sys.excepthook:", file=sys.stderr)  # noqa: T201
            sys.__excepthook__(type(fault), fault, fault.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)  # noqa: T201
            sys.__excepthook__(type(error), error, error.__traceback__)
    return 1


@contextmanager
def in_threads(stop: type[BaseException] | None) -> Iterator[list[BaseException]]:
    """Tell of a thread's end as `tell` does of the script's; yields the stops met there."""
    stops: list[BaseException] = []
    old = threading.excepthook

    def hook(given: threading.ExceptHookArgs) -> None:
        kind, error, entries, thread = given
        if stop is not None and isinstance(error, stop):
            stops.append(error)
            return
        if error is not None:
            _hide_own_frames(error, set())
            entries = error.__traceback__
        old(threading.ExceptHookArgs((kind, error, entries, thread)))

    threading.excepthook = hook
    try:
        yield stops
    finally:
        threading.excepthook = old


def _hide_own_frames(error: BaseException | None, seen: set[int]) -> None:
    """Take gradlint's frames out of the tracebacks of `error` and of what led to it.

    Where an exception was raised by gradlint's own code, only the frames above the script go.
    """
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    entries: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    files = [entry.tb_frame.f_code.co_filename for entry in entries]
    own_fault = (
        isinstance(error, Exception)
        and bool(files)
        and files[-1].startswith(_PACKAGE)
        and files[-1] != _RUNNER
    )
    kept = [
        entry
        for entry, file in zip(entries, files, strict=True)
        if file != _RUNNER and (own_fault or not file.startswith(_PACKAGE))
    ]
    for entry, following in zip(kept, [*kept[1:], None], strict=False):
        entry.tb_next = following
    error.__traceback__ = kept[0] if kept else None
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        if isinstance(other, BaseException):
            _hide_own_frames(other, seen)
