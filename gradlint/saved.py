"""Saved files: a trace, or reports as JSON; what `report` and `compare` read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gradlint.errors import UsageError
from gradlint.report import SCHEMA as REPORT_SCHEMA
from gradlint.report import Report
from gradlint.trace_reading import SCHEMA as TRACE_SCHEMA
from gradlint.trace_reading import Recorded, read_recorded


def read_saved(path: str | os.PathLike[str]) -> Recorded | tuple[Report, ...]:
    """Return the trace in the file `path`, or the reports in it.

    Reports stand there as formats "json" (one, or an array) and "jsonl" (one a line) have
    them.

    Raises:
        UsageError: If there is neither; says why in one sentence.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            first = _schema(file.readline())
            if first is not None and first.startswith("gradlint.trace/"):
                return read_recorded(path)
            file.seek(0)
            data = file.read()
    except OSError as error:
        if path.is_dir():
            raise UsageError(f"expected a file, got the folder {str(path)!r}") from error
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"no such file: {str(path)!r}") from error
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return _reports(path, data)


def _schema(line: bytes) -> str | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    schema = data.get("schema") if isinstance(data, dict) else None
    return schema if isinstance(schema, str) else None


def _reports(path: Path, data: bytes) -> tuple[Report, ...]:
    entries: list[Any] = []
    try:
        held = json.loads(data)
        entries = held if isinstance(held, list) else [held]
    except (ValueError, RecursionError):
        try:
            entries = [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            entries = []
    whole = all(
        isinstance(entry, dict) and entry.get("schema") == REPORT_SCHEMA for entry in entries
    )
    if not entries or not whole:
        raise UsageError(
            f"{str(path)!r} is neither a trace ({TRACE_SCHEMA}) nor a JSON report "
            f"({REPORT_SCHEMA}) of gradlint"
        )
    try:
        return tuple(Report.from_json(json.dumps(entry)) for entry in entries)
    except UsageError as error:
        raise UsageError(f"{str(path)!r}: {error}") from error
