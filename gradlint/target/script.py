"""Running an unmodified script or module, as ``python SCRIPT`` and ``python -m MODULE`` do."""

from __future__ import annotations

import atexit
import io
import os
import pkgutil
import runpy
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any, NoReturn

from gradlint.entry import Entry
from gradlint.errors import TargetNotFoundError
from gradlint.target.as_main import absolute, as_main, way_back
from gradlint.target.signals import Terminated, signals
from gradlint.target.uncaught import in_threads, status_of, tell

INTERRUPTED = 130


class _CannotRunError(TargetNotFoundError):
    """There is nothing to run under the module's name."""


@dataclass(frozen=True)
class Outcome:
    """How a script ended.

    `status` is what the process would have ended with under python (130 after Ctrl-C).
    `ended` is "" where the script ended by itself, at its last line or by `sys.exit`; else
    "exception", "interrupted", "killed" (SIGTERM), or why it was stopped: "until", "fail-on".
    `error` is what was raised, if `status` is not 0.
    """

    status: int = 0
    ended: str = ""
    error: BaseException | None = None
    reinstate: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    """Puts the script's ``__main__``, arguments and path back, for what it does at exit."""


def run_script(entry: Entry, stop: type[BaseException] | None = None) -> Outcome:
    """Run `entry` to its end, threads included, and say how it ended.

    The script sees what it would see under python: its arguments, its folder first on the
    path, a ``__main__`` of its own (which is what it pickles by, and what processes it
    spawns import again), the process's own streams and working directory. An exception it
    does not catch is told by `sys.excepthook`, without gradlint's frames.

    Arguments, path, ``__main__`` and signal handlers are afterwards as they were.

    Args:
        entry: What to run.
        stop: The exception that ends a run early and by intention; its `reason` says why.

    Raises:
        TargetNotFoundError: If a module that is to be run does not exist.
    """
    process = os.getpid()
    before = set(threading.enumerate())
    with ExitStack() as stack:
        main = stack.enter_context(as_main(entry))
        stack.enter_context(signals())
        stops = stack.enter_context(in_threads(stop))
        outcome = _ended(lambda: _execute(entry, main), stop)
        if stop is None or not isinstance(outcome.error, stop):
            waited = _ended(lambda: _join(before), stop)
            outcome = outcome if waited.status == 0 and not waited.ended else waited
        _flush()
        if os.getpid() != process:
            _exit_child(outcome.status)
        reinstate = way_back(main)
    if stops and outcome.status == 0:
        return Outcome(0, _reason(stops[0]), None, reinstate)
    error = outcome.error if outcome.status else None
    return Outcome(outcome.status, outcome.ended, error, reinstate)


def _execute(entry: Entry, main: ModuleType) -> None:
    if entry.kind == "file":
        code = _code(entry.name)
        exec(code, main.__dict__)  # noqa: S102 - this is what the command is for
        return
    run: Any = runpy.__dict__["_run_module_as_main"]  # what python itself calls for both
    try:
        run("__main__" if entry.kind == "container" else entry.name, entry.kind == "module")
    except SystemExit as error:
        if isinstance(error.__context__, runpy.__dict__["_Error"]):
            reason = str(error.code).removeprefix(f"{sys.executable}: ")
            raise _CannotRunError(f"{entry.name!r} cannot be run: {reason}") from None
        raise


def _code(name: str) -> CodeType:
    path = absolute(name)
    with io.open_code(path) as file:
        text = file.read()  # once: it may be a pipe
    compiled: CodeType | None = pkgutil.read_code(io.BytesIO(text))
    return compiled or compile(text, path, "exec", dont_inherit=True)


def _ended(run: Callable[[], None], stop: type[BaseException] | None) -> Outcome:
    """Call `run`; do with what it raises as python does at its end."""
    try:
        run()
    except _CannotRunError:
        raise
    except SystemExit as error:
        ended = "killed" if isinstance(error, Terminated) else ""
        return Outcome(status_of(error), ended, error)
    except KeyboardInterrupt as error:
        tell(error)
        return Outcome(INTERRUPTED, "interrupted", error)
    except BaseException as error:
        if stop is not None and isinstance(error, stop):
            return Outcome(0, _reason(error), error)
        return Outcome(tell(error), "exception", error)
    return Outcome()


def _reason(stop: BaseException) -> str:
    return str(getattr(stop, "reason", "until"))


def _join(before: set[threading.Thread]) -> None:
    """Wait for the script's threads, as python does before it ends.

    The idle threads of executors are left to python: it alone can tell them to go.
    """
    futures: Any = sys.modules.get("concurrent.futures.thread")
    waiting = getattr(futures, "_threads_queues", ())
    skipped = {threading.current_thread(), threading.main_thread(), *before}
    while True:
        running = [t for t in threading.enumerate() if not t.daemon and t not in waiting]
        left = [thread for thread in running if thread not in skipped]
        if not left:
            return
        left[0].join()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _exit_child(status: int) -> NoReturn:
    """End a process the script has forked off; what is reported is its parent's."""
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with suppress(BaseException):
        atexit._run_exitfuncs()
    _flush()
    os._exit(status)
