"""guarded: our own mistakes end the watching, never the run that is watched."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar, cast

from gradlint.errors import GradientHealthError

F = TypeVar("F", bound=Callable[..., Any])


class Stop(BaseException):
    """Ends a watched script on request; not an `Exception`, so that scripts let it through."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Process:
    """The process this is, known without asking the system."""

    id = os.getpid()

    @classmethod
    def forked(cls) -> None:
        """Learn that this is a child."""
        cls.id = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.forked)


def guarded(method: F) -> F:
    """Make a method of `Loop` safe to be called from inside the user's training.

    An exception of ours disarms the watcher and is kept in `failure`; only what the user
    asked for (`GradientHealthError`, `Stop`) passes. The time inside is added to `own`: by
    the thread's clock during the first steps, whose number must not depend on who else uses
    the machine; then by the clock on the wall, since a thread's clock is asked of the system
    and would cost more than most of what it measures. A forked process (a loader's worker)
    is not watched, nor is a second thread that trains.
    """

    @functools.wraps(method)
    def safely(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.thread != get_ident() and not _takes(self):
            return None
        if self.inside:
            return method(self, *args, **kwargs)
        if self.process != _Process.id:
            return None
        self.inside = True
        clock = self.clock  # another one may go on from here
        self.entered = clock()
        try:
            return method(self, *args, **kwargs)
        except (GradientHealthError, Stop):
            raise
        except Exception as error:
            self.fail(error)
            return None
        finally:
            self.inside = False
            self.own += clock() - self.entered

    return cast(F, safely)


def _takes(loop: Any) -> bool:
    """Whether the loop runs in this thread: the first one that trains."""
    if loop.thread is None:
        loop.thread = get_ident()
        return True
    return False


@guarded
def guarded_by(loop: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function` as a guarded method of `loop` is called."""
    return function(*args, **kwargs)
