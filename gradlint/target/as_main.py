"""The surroundings of a script: its ``__main__``, arguments and path, and the way back."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import ModuleType

from gradlint.entry import Entry

_BARE = frozenset(sys.builtin_module_names) | {
    "__main__", "_collections_abc", "_sitebuiltins", "abc", "codecs", "encodings", "genericpath",
    "gradlint", "io", "ntpath", "os", "posixpath", "site", "stat", "torch", "zipimport",
}  # fmt: skip
"""Modules that are loaded before any script is: none beside the script can take their place."""


@contextmanager
def as_main(entry: Entry) -> Iterator[ModuleType]:
    """Give the process a new ``__main__``, the script's arguments and its place on the path."""
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins)
    if sys.version_info < (3, 14):
        main.__dict__.setdefault("__annotations__", {})
    if entry.kind == "file":
        path = absolute(entry.name)
        loader = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
        main.__dict__.update(__file__=path, __cached__=None, __loader__=loader("__main__", path))
        first = os.path.dirname(os.path.realpath(path))
    else:
        first = str(Path.cwd()) if entry.kind == "module" else absolute(entry.name)
    old_path, paths = sys.path, list(sys.path)
    old_argv, old_main, old_hook = sys.argv, sys.modules.get("__main__"), sys.excepthook
    # The first entry is what python put there for the command that runs now; under -P, none is.
    sys.path[: 0 if sys.flags.safe_path else 1] = (
        [] if sys.flags.safe_path and entry.kind != "container" else [first]
    )
    sys.argv = ["-m" if entry.kind == "module" else entry.name, *entry.arguments]
    sys.modules["__main__"] = main
    if str(getattr(sys.excepthook, "__module__", "")).startswith("typer."):
        sys.excepthook = sys.__excepthook__  # the command line's own is not the script's
    hidden = _hide_homonyms(Path(first))
    try:
        yield main
    finally:
        _forget(hidden)
        sys.modules.update(hidden)
        sys.argv, sys.excepthook = old_argv, old_hook
        old_path[:] = paths
        sys.path = old_path
        if old_main is None:
            sys.modules.pop("__main__", None)
        else:
            sys.modules["__main__"] = old_main


def absolute(name: str) -> str:
    """The path python puts into ``__file__``: absolute, and otherwise as it was given."""
    return name if Path(name).is_absolute() else f"{Path.cwd()}{os.sep}{name}"


def way_back(main: ModuleType) -> Callable[[], None]:
    """Return what puts the script's surroundings, as they are now, into place again."""
    argv, path = sys.argv, list(sys.path)

    def reinstate() -> None:
        sys.argv, sys.path[:] = argv, path
        sys.modules["__main__"] = main

    return reinstate


def _hide_homonyms(folder: Path) -> dict[str, ModuleType]:
    """Take modules away that gradlint has loaded and that the script has its own of.

    Beside a script's own ``rich.py``, python would never have loaded another.
    """
    hidden: dict[str, ModuleType] = {}
    try:
        folder = folder.resolve()
        own = {path.stem for path in folder.glob("*.py")}
        own |= {path.parent.name for path in folder.glob("*/__init__.py")}
    except OSError:
        return hidden
    for name in own - _BARE:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and folder not in Path(file).resolve().parents:
            hidden |= {key: module for key, module in sys.modules.items() if _is_in(key, name)}
    for name in hidden:
        del sys.modules[name]
    return hidden


def _forget(hidden: Iterable[str]) -> None:
    for top in {name for name in hidden if "." not in name}:
        for name in [key for key in sys.modules if _is_in(key, top)]:
            del sys.modules[name]


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
