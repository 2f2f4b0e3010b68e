"""Exceptions as one sentence and an exit code."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from gradlint.errors import GradlintError, UsageError

OWN_FAULT = 70
INTERRUPTED = 130


def sentence(error: BaseException) -> tuple[str, int]:
    """Return what to say of `error`, on one line, and the exit code it stands for."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, SystemExit):
        return f"the target ended itself: sys.exit({error.code!r})", 3
    if isinstance(error, GradlintError):
        text, code = str(error), error.exit_code
    elif hasattr(error, "format_message"):  # the exceptions of typer's parser
        text, code = str(error.format_message()), int(getattr(error, "exit_code", 2))
    elif type(error).__name__ == "Abort":
        return "interrupted", INTERRUPTED
    else:
        first = next(iter(str(error).strip().splitlines()), "")
        text, code = f"{type(error).__name__}: {first:.300}", OWN_FAULT
    if code == OWN_FAULT:
        text = f"{text} (a fault of gradlint itself; -v shows where, please report it)"
    return " ".join(text.split()), code


def exit_code_for(error: BaseException, *, verbose: bool) -> int:
    """Say on stderr what `error` is, with its traceback if `verbose`; return its exit code."""
    if isinstance(error, BrokenPipeError):
        # nobody reads on: stdout must not be flushed at exit, or Python complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    text, code = sentence(error)
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    say(text)
    return code


def say(text: str) -> None:
    """Write one line about the run to stderr, in whatever characters it can."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    line = f"gradlint: {text}\n".encode(encoding, "replace").decode(encoding)
    with suppress(AttributeError, OSError, ValueError):  # closed by the shell or by the target
        sys.stderr.write(line)


def choose(option: str, value: str, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        UsageError: If it is not; lists them, and says which was meant.
    """
    if value in choices:
        return value
    close = difflib.get_close_matches(value.lower(), choices, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"{option}: expected one of {', '.join(choices)}, got {value!r}{meant}")
