"""What an import may not do: raise, exit or train; each is said in one sentence."""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradlint.errors import UsageError
from gradlint.target.user_code import frames, quietly, say, shown

MOST_STEPS = 3
"""Optimizer steps during an import after which the file is taken to train: a test of one
or two steps is none."""

MOST_BACKWARDS = 8
"""Backward passes during an import after which the same is said, for training by hand."""


class _TrainsAtImport(BaseException):
    """Raised inside the user's import to end a training."""


@contextlib.contextmanager
def guarded(path: str, file: str | None) -> Iterator[None]:
    """Turn whatever an import raises into one sentence; end a training at import."""
    arguments = sys.argv
    sys.argv = [file or path]
    try:
        with quietly(), _no_training():
            yield
    except UsageError:
        raise
    except _TrainsAtImport as stop:
        raise UsageError(
            f"{path} trains when it is imported{_at(stop, file)}; put the training under "
            f'`if __name__ == "__main__":`, or watch the script with `gradlint run {path}`'
        ) from None
    except SyntaxError as error:
        place = shown(error.filename) if error.filename else path
        line = f":{error.lineno}" if error.lineno else ""
        text = f": {error.text.strip()}" if error.text else ""
        raise UsageError(
            f"expected {path} to be valid Python, got a syntax error at {place}{line}{text} "
            f"({error.msg})"
        ) from error
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} imports {error.name!r}{_at(error, file)}, which is not installed; install it "
            "into the environment gradlint runs in"
        ) from error
    except SystemExit as error:
        raise UsageError(
            f"{path} exits with status {error.code!r} when it is imported{_at(error, file)}; put "
            'what is a script under `if __name__ == "__main__":`, or watch it with '
            f"`gradlint run {path}`"
        ) from error
    except Exception as error:
        relative = "relative import" in str(error)
        hint = f"; name it as a module, gradlint check {_as_module(path)}" if relative else ""
        raise UsageError(
            f"{path} raises {say(error)} when it is imported{_at(error, file)}{hint}"
        ) from error
    finally:
        sys.argv = arguments


def _as_module(path: str) -> str:
    return ".".join(Path(path).with_suffix("").parts)


def _at(error: BaseException, file: str | None) -> str:
    """Return `` (line N: text)`` of the file's own statement that was under way."""
    for frame, line in frames(error):
        name = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" and (file is None or name == file):
            text = linecache.getline(name, line).strip()
            return f" (line {line}: {text})" if text else f" (line {line})"
    return ""


@contextlib.contextmanager
def _no_training() -> Iterator[None]:
    """Raise `_TrainsAtImport` from the step or backward that makes it a training."""
    counts = {"step": 0, "backward": 0}

    def stepping(*_: Any) -> None:
        counts["step"] += 1
        if counts["step"] >= MOST_STEPS:
            raise _TrainsAtImport

    original = torch.autograd.backward

    def backward(*args: Any, **kwargs: Any) -> None:
        counts["backward"] += 1
        if counts["backward"] >= MOST_BACKWARDS:
            raise _TrainsAtImport
        original(*args, **kwargs)

    handle = register_optimizer_step_pre_hook(stepping)
    torch.autograd.backward = backward
    try:
        yield
    finally:
        torch.autograd.backward = original
        handle.remove()
