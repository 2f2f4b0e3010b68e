"""Where findings are, what they are called, and characters that any format can hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gradlint.report import Report
from gradlint.report_records import ReportedFinding, SourceRecord, Suppressed

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_IDENTIFIERS = re.compile(r"\w+(\.\w+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A file, with forward slashes and relative where the report has it so, and a line from 1."""

    file: str
    line: int = 1


def place_of(report: Report, source: SourceRecord | None = None) -> Place:
    """Return where `source` is; the first line of the target's file where there is none."""
    if source is not None:
        return Place(_slashes(source.file), max(1, source.line))
    known = (found.source.file for found in report.findings if found.source is not None)
    path = _file_of_module(report.target.path or "")
    return Place(_slashes(path or next(known, "") or report.target.object or "model"))


def _file_of_module(path: str) -> str:
    """Return the file of a target that is given as ``package.module``, if it is here."""
    inside = path.replace(".", "/")
    if path.endswith(".py") or not _IDENTIFIERS.fullmatch(path):
        return path
    files = (f"{inside}.py", f"{inside}/__init__.py")
    return next((file for file in files if Path(file).is_file()), path)


def _slashes(file: str) -> str:
    return clean(file.replace("\\", "/")).removeprefix("./") or "model"


def target_name(report: Report) -> str:
    """Return ``path:object`` of the target, as far as they are known."""
    target = report.target
    return ":".join(part for part in (target.path, target.object) if part) or "model"


def module_name(path: str | None) -> str:
    """Return how a module is called in text: the model itself has an empty path."""
    return path or "model"


def where(found: ReportedFinding) -> str:
    """Return the finding's module, and how many more; empty for one of no module."""
    places = found.modules or (() if found.module is None else (found.module,))
    if not places:
        return ""
    others = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{module_name(places[0])}{others}"


def told(found: ReportedFinding) -> str:
    """Return what was found and what to do, in two lines."""
    return clean("\n".join(part for part in (found.message, found.help) if part))


def failure(report: Report) -> str:
    """Return what ended the target's run as a sentence; empty where nothing did."""
    return "" if report.error is None else clean(report.error.sentence)


def clean(text: str) -> str:
    """Return `text` with control characters and lone surrogates written as ``\\x1b``.

    What is left can stand in XML 1.0, in JSON and in any file in UTF-8.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Fingerprints:
    """Names of findings that last while lines move: of rule, target and module alone.

    A second finding of the same rule at the same place is told from the first by a number.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, report: Report, found: ReportedFinding | Suppressed) -> str:
        """Return the next fingerprint of `found`, 40 hexadecimal digits."""
        name = _hash([found.code, target_name(report), found.module or "", found.parameter or ""])
        self._seen[name] = self._seen.get(name, 0) + 1
        count = self._seen[name]
        return name if count == 1 else _hash([name, str(count)])


def _hash(parts: Iterable[str]) -> str:
    text = "\0".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.sha256(text).hexdigest()[:40]
