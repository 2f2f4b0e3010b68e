"""The formats of a report: every `to_<format>` module in this folder is one. No torch here."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from gradlint.errors import UsageError
from gradlint.reporters.base import Options as Options

if TYPE_CHECKING:
    from gradlint.report import Report

Reporter = Callable[["Report", Options], str]

MACHINE_FORMATS = frozenset({"json", "jsonl", "sarif", "github", "gitlab", "junit"})
"""Formats read by programs."""
ALWAYS_WRITTEN = MACHINE_FORMATS | {"html"}
"""Formats that get a report even where there is nothing but an error: no old file stays."""

_EXTENSIONS = {".txt": "full", ".md": "markdown", ".xml": "junit"}


@cache
def formats() -> tuple[str, ...]:
    """Return the names of all formats, those for people first."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if m.name.startswith("to_")]
    found = [name.removeprefix("to_").replace("_", "-") for name in names]
    first = {"full": 0, "concise": 1}
    return tuple(sorted(found, key=lambda name: (first.get(name, 2), name)))


def reporter(name: str) -> Reporter:
    """Return the function that writes one report in format `name`.

    Raises:
        UsageError: If there is no such format; lists those there are.
    """
    render_one: Reporter = _module(name).render
    return render_one


def _module(name: str) -> ModuleType:
    if name not in formats():
        raise UsageError(no_such_format(name))
    return importlib.import_module(f"{__name__}.to_{name.replace('-', '_')}")


def render(reports: Sequence[Report], name: str, options: Options | None = None) -> str:
    """Return `reports` in format `name`; several become one document, or follow each other.

    A reporter that has `render_all` says itself what several become.
    """
    options = options or Options()
    together = getattr(_module(name), "render_all", None)
    if together is not None:
        text: str = together(reports, options)
        return text
    texts = [reporter(name)(report, options) for report in reports]
    if name == "json" and len(texts) != 1:
        return "[\n" + ",\n".join(text.rstrip("\n") for text in texts) + "\n]\n"
    return ("\n" if name == "full" else "").join(texts)


def format_of_file(path: str | os.PathLike[str]) -> str:
    """Return the format that the extension of `path` stands for.

    Raises:
        UsageError: If none does.
    """
    named = {f".{name}": name for name in formats() if name not in ("full", "concise")}
    known = named | {ending: name for ending, name in _EXTENSIONS.items() if name in formats()}
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        endings = ", ".join(sorted(known))
        raise UsageError(f"expected a file ending in one of {endings}, got {str(path)!r}")
    return known[suffix]


def no_such_format(name: str) -> str:
    """Return the sentence that says there is no such format."""
    import difflib

    close = difflib.get_close_matches(name, formats(), n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"no format {name!r}; {meant}available: {', '.join(formats())}"
