"""guarded: our own mistakes end the watching, never the run that is watched."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from gradlint.errors import GradientHealthError

F = TypeVar("F", bound=Callable[..., Any])


class Stop(BaseException):
    """Ends a watched script on request; not an `Exception`, so that scripts let it through."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def guarded(method: F) -> F:
    """Make a method of `Loop` safe to be called from inside the user's training.

    An exception of ours disarms the watcher and is kept in `failure`; only what the user
    asked for (`GradientHealthError`, `Stop`) passes. The time inside is added to `own`. A
    forked process (a loader's worker) is not watched, nor is a second thread that trains.
    """

    @functools.wraps(method)
    def safely(self: Any, *args: Any, **kwargs: Any) -> Any:
        return guarded_by(self, method, self, *args, **kwargs)

    return cast(F, safely)


def guarded_by(loop: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function` as a guarded method of `loop` is called."""
    thread = threading.get_ident()
    if loop.thread != thread:
        if loop.thread is not None:
            return None
        loop.thread = thread
    if loop.inside:
        return function(*args, **kwargs)
    if os.getpid() != loop.process:
        return None
    loop.inside = True
    loop.entered = started = time.thread_time()
    try:
        return function(*args, **kwargs)
    except (GradientHealthError, Stop):
        raise
    except Exception as error:
        loop.fail(error)
        return None
    finally:
        loop.inside = False
        loop.own += time.thread_time() - started
