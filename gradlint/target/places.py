"""Which files are the user's own, and how they are shown."""

from __future__ import annotations

import os
import site
import sysconfig
from functools import cache
from pathlib import Path

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
