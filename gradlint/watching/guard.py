"""guarded: our own mistakes end the watching, never the run that is watched."""

from __future__ import annotations

import functools
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
    asked for (`GradientHealthError`, `Stop`) passes. The time inside is added to `own`.
    """

    @functools.wraps(method)
    def safely(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._inside:
            return method(self, *args, **kwargs)
        self._inside = True
        self._entered = started = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        except (GradientHealthError, Stop):
            raise
        except Exception as error:
            self.fail(error)
            return None
        finally:
            self._inside = False
            self.own += time.perf_counter() - started

    return cast(F, safely)
