"""The user's code: which files are theirs, how they run, and what they raised."""

from __future__ import annotations

import os
import random
import site
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from types import FrameType

import torch


@cache
def _foreign() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    roots += site.getsitepackages() if hasattr(site, "getsitepackages") else []
    roots += [str(Path(torch.__file__).parent), str(Path(__file__).parents[1])]
    return tuple(os.path.realpath(root) + os.sep for root in roots)


@cache
def is_users(file: str) -> bool:
    """Whether `file` is code somebody wrote here: not the library, torch, or gradlint."""
    if not file or file.startswith("<"):
        return False
    real = os.path.realpath(file)
    parts = Path(real).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return False
    return not real.startswith(_foreign())


def shown(file: str) -> str:
    """Return `file` relative to the working directory if it is below it, else whole."""
    try:
        return str(Path(os.path.realpath(file)).relative_to(os.path.realpath(Path.cwd())))
    except (ValueError, OSError):
        return file


def say(error: BaseException) -> str:
    """Class and first line of an exception."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0].strip().rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(error: BaseException) -> str:
    """Return `` at FILE:LINE`` of the innermost line of the user's own code."""
    for frame, line in reversed(list(frames(error))):
        if is_users(frame.f_code.co_filename):
            return f" at {shown(frame.f_code.co_filename)}:{line}"
    return ""


def frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Frames an exception passed through and their lines, outermost first."""
    yield from traceback.walk_tb(error.__traceback__)


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled regions as they were written: what is compiled cannot be looked into.

    Without a compiler loaded there is nothing to do, and none is loaded for it.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def quietly(seed: int | None = None, *, warn: bool = True) -> Iterator[None]:
    """Run the user's code: what it prints goes to stderr, the random states are put back.

    `warn` False drops its warnings, of trials that nobody asked for.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with (
        torch.random.fork_rng(devices=devices),
        redirect_stdout(sys.stderr),
        nullcontext() if warn else warnings.catch_warnings(),
    ):
        if not warn:
            warnings.simplefilter("ignore")
        numpy = sys.modules.get("numpy")
        states = random.getstate(), numpy.random.get_state() if numpy is not None else None
        if seed is not None:
            torch.manual_seed(seed)
            random.seed(seed)
            if numpy is not None:
                numpy.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            if numpy is not None:
                numpy.random.set_state(states[1])
