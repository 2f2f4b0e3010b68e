"""What an import may not do: raise, exit or train the target; each is said in one sentence."""

from __future__ import annotations

import contextlib
import linecache
import sys
import traceback
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from gradlint.errors import UsageError
from gradlint.target.user_code import frames, quietly, say, shown

MOST_STEPS = 3
"""Steps of the target's optimizer during an import after which the file is taken to train it: a
test of one or two steps is none."""

MOST_HELPED = 300
"""Steps of any optimizer during an import: a teacher, or an encoder for the data, is made in a few
hundred; what goes on is a training, whatever of."""

MOST_BACKWARDS = 8
"""Backward passes in a row that no optimizer steps after, for training by hand."""


class _TrainsAtImport(BaseException):
    """Raised inside the user's import to end a training."""


@dataclass
class Trained:
    """What an import trained beside the target: a teacher, an encoder of the data.

    Args:
        path: The target, as written.
        file: Its file, where it is one.
    """

    path: str
    file: str | None
    _weights: dict[int, tuple[weakref.ref[Tensor], str]] = field(default_factory=dict)

    def add(self, parameters: Iterable[Tensor]) -> None:
        """Note what an optimizer is about to train, and where."""
        place = _place(traceback.walk_stack(None), self.file)
        for parameter in parameters:
            self._weights[id(parameter)] = weakref.ref(parameter), place

    def forbid(self, model: nn.Module) -> None:
        """Raise `UsageError` if any of it is what the target is to learn."""
        for parameter in model.parameters():
            known = self._weights.get(id(parameter))
            if known is not None and known[0]() is parameter and parameter.requires_grad:
                raise self.error(known[1])

    def error(self, place: str) -> UsageError:
        """Return what is said of a file that trains when it is imported."""
        return UsageError(
            f"{self.path} trains when it is imported{place}; put the training under "
            f'`if __name__ == "__main__":`, or watch the script with `gradlint run {self.path}`'
        )


@contextlib.contextmanager
def guarded(path: str, file: str | None) -> Iterator[Trained]:
    """Turn whatever an import raises into one sentence; end a training at import."""
    arguments = sys.argv
    sys.argv = [file or path]
    trained = Trained(path, file)
    try:
        with quietly(), _no_training(trained):
            yield trained
    except UsageError:
        raise
    except _TrainsAtImport as stop:
        raise trained.error(_at(stop, file)) from None
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
    """Return ``_place`` of what an exception passed through."""
    return _place(frames(error), file)


def _place(stack: Iterable[tuple[FrameType, int]], file: str | None) -> str:
    """Return `` (line N: text)`` of the file's own statement that was under way."""
    for frame, line in stack:
        name = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" and (file is None or name == file):
            text = linecache.getline(name, line).strip()
            return f" (line {line}: {text})" if text else f" (line {line})"
    return ""


@contextlib.contextmanager
def _no_training(trained: Trained) -> Iterator[None]:
    """Note what is trained; raise `_TrainsAtImport` from the step or backward that goes too far."""
    steps: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
    counts = {"step": 0, "backward": 0, "inside": 0}

    def stepping(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        counts["step"] += 1
        counts["backward"] = 0
        counts["inside"] = 1
        steps[optimizer] = steps.get(optimizer, 0) + 1
        if steps[optimizer] == MOST_STEPS:
            trained.add(p for group in optimizer.param_groups for p in group["params"])
        if counts["step"] > MOST_HELPED:
            raise _TrainsAtImport

    def stepped(*_: Any) -> None:
        counts["inside"] = 0

    original = torch.autograd.backward

    def backward(*args: Any, **kwargs: Any) -> None:
        counts["backward"] += not counts["inside"]  # a closure may be called often
        if counts["backward"] >= MOST_BACKWARDS:
            raise _TrainsAtImport
        original(*args, **kwargs)

    handles = (
        register_optimizer_step_pre_hook(stepping),
        register_optimizer_step_post_hook(stepped),
    )
    torch.autograd.backward = backward
    try:
        yield
    finally:
        torch.autograd.backward = original
        for handle in handles:
            handle.remove()
