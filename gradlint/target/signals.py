"""Signals while a script runs: what ends python at once must leave time for a report."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType

TERMINATED = 143

_held = threading.local()
"""The signal mask of a thread that forks, from before to after."""


class Terminated(SystemExit):
    """Raised in the script by SIGTERM, so that what ran until then can be reported."""


@contextmanager
def signals() -> Iterator[None]:
    """Let SIGTERM end the script as `sys.exit` would; put all handlers back at the end.

    Only where nobody handles it, and not in the further ranks of a distributed run, which
    have no report to write and are not to keep the others waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mine = os.environ.get("RANK", "0") == "0" and handlers[signal.SIGTERM] is signal.SIG_DFL
    if mine:
        _reset_after_fork()
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                if number == getattr(signal, "SIGALRM", None):
                    signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(number, handler)


@contextmanager
def without_end() -> Iterator[None]:
    """Let no SIGTERM come between: for the moment in which a report is written."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(TERMINATED)


@cache
def _reset_after_fork() -> None:
    """Let processes that a script forks off die by SIGTERM at once, as python's do.

    The signal waits while a fork is under way: a child that has our handler and not yet
    python's loop would swallow it.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_hold, after_in_parent=_release, after_in_child=_release_to_default
        )


def _hold() -> None:
    _held.mask = None
    if signal.getsignal(signal.SIGTERM) is _terminate:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    if _held.mask is None:
        return
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)
    except Terminated:  # it came meanwhile; raised here, it would be lost
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()


def _release_to_default() -> None:
    if _held.mask is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)
