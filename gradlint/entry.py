"""What `gradlint run` is asked to run: a script, a folder or zip, a module. No torch here."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradlint.errors import TargetNotFoundError, UsageError

MAINS = ("__main__.py", "__main__.pyc")

_LAUNCHERS = {
    "python": "leave `python` out: gradlint run SCRIPT",
    "python3": "leave `python3` out: gradlint run SCRIPT",
    "torchrun": "the launcher goes first: torchrun … -m gradlint run SCRIPT",
    "accelerate": "the launcher goes first: accelerate launch … -m gradlint run SCRIPT",
    "deepspeed": "the launcher goes first, with `gradlint run SCRIPT` as what it starts",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is run: `kind` says whether `name` is a file, holds a ``__main__``, or is a module.

    `name` is as given; `arguments` are those of the script, untouched.
    """

    name: str
    arguments: tuple[str, ...] = ()
    kind: Literal["file", "container", "module"] = "file"


def find_entry(name: str, arguments: tuple[str, ...] = (), *, module: bool = False) -> Entry:
    """Return what `name` stands for, as far as can be told without running anything.

    Raises:
        UsageError: If there is no such script or module, or it cannot be run.
    """
    if module:
        return _module(name, arguments)
    path = Path(name)
    if path.is_dir():
        if not any((path / main).is_file() for main in MAINS):
            raise UsageError(_no_main(path))
        return Entry(name, arguments, "container")
    if not path.exists():
        raise TargetNotFoundError(f"expected a script, found no file {name!r}; {_meant(path)}")
    if path.suffix == ".ipynb":
        raise UsageError(
            f"expected a Python script, got the notebook {name!r}; in a notebook use "
            "gradlint.watch(model, optimizer)"
        )
    if not path.is_file():  # a pipe: to look into it would empty it
        return Entry(name, arguments)
    try:
        with path.open("rb"):
            pass
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if not set(MAINS) & set(archive.namelist()):
                    raise UsageError(f"the archive {name!r} has no __main__.py, so nothing to run")
            return Entry(name, arguments, "container")
    except OSError as error:
        raise UsageError(f"{name!r} cannot be read: {error.strerror}") from error
    return Entry(name, arguments)


def _module(name: str, arguments: tuple[str, ...]) -> Entry:
    if name.startswith("."):
        raise UsageError(f"expected a module's whole name after -m, got the relative {name!r}")
    if name.endswith(".py") or "/" in name:
        raise UsageError(f"-m takes a module's name, got a file's: gradlint run {name}")
    first = name.partition(".")[0]
    if not _can_find(first):
        raise TargetNotFoundError(
            f"expected a module, found no module {first!r} here or in the environment"
        )
    return Entry(name, arguments, "module")


def _can_find(name: str) -> bool:
    """Whether there is a module `name`, in the working directory, too; nothing is imported."""
    path = list(sys.path)
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with suppress(ImportError, ValueError, AttributeError):
            importlib.invalidate_caches()
            return importlib.util.find_spec(name) is not None
        return False
    finally:
        sys.path[:] = path


def _no_main(folder: Path) -> str:
    found = sorted(p.name for p in folder.glob("*.py") if p.name != "__init__.py")
    example = next((n for n in ("train.py", "main.py") if n in found), (found or [""])[0])
    hint = f"; name a script in it: gradlint run {folder / example}" if example else ""
    return f"the folder {str(folder)!r} has no __main__.py, so nothing to run{hint}"


def _meant(path: Path) -> str:
    if str(path) in _LAUNCHERS:
        return _LAUNCHERS[str(path)]
    script = str(path).partition(":")[0]
    if script != str(path) and Path(script).is_file():
        return f"a script is run whole, as python does it: gradlint run {script}"
    folder = path.parent
    beside = [p.name for p in folder.glob("*.py")] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    if close:
        return f"did you mean {str(folder / close[0])!r}?"
    name = str(path)
    if all(part.isidentifier() for part in name.split(".")) and _can_find(name.split(".")[0]):
        return f"a module is run with -m: gradlint run -m {name}"
    return "check the path; options of `run` stand before the script"
