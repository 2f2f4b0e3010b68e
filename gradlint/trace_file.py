"""Trace files: a run as JSON lines, written while it goes on, read back as a Trace.

Every line is one object, told by its first key:

- ``schema`` (always the first line): "gradlint.trace/1", with ``versions`` and ``target``;
- ``target``: what became known of the target since; the latest line holds;
- ``modules`` and ``parameters`` (arrays of paths and records), ``graph`` (an array of operations):
  those that changed, on one line;
- ``facts``: fields of the Facts that changed; ``flows`` and ``events``: those from number
  ``at`` on;
- ``sites``: arrays ``[path, kind, depth, module]``, counted from 0 over the whole file;
- ``layout``: what the values of a step stand for, counted likewise: pairs of a metric and the
  numbers of the sites it was read at, one after another;
- ``step``: one step's ``values``, in the order of the layout numbered ``of``;
- ``ended``: how the run ended; a file without this line was not closed.

Non-finite numbers are the words "nan", "inf" and "-inf"; `trace_records` says the rest. Lines and
fields that a reader does not know are left out: they are added, never changed, within ``/1``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gradlint.errors import UsageError
from gradlint.trace import Trace
from gradlint.trace_reading import (
    SCHEMA,
    Header,
    Recorded,
    check_place,
    read_header,
    read_recorded,
    read_trace,
)
from gradlint.trace_writing import MAX_BYTES, TraceWriter

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "Header",
    "Recorded",
    "TraceWriter",
    "check_place",
    "read_header",
    "read_recorded",
    "read_trace",
    "write_trace",
]


def write_trace(
    path: str | os.PathLike[str],
    trace: Trace,
    *,
    versions: Mapping[str, str] | None = None,
    target: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole `trace` to `path`.

    Raises:
        UsageError: If the file cannot be written, or is there and is no trace.
    """
    writer = TraceWriter(path, versions=versions, target=target)
    writer.whole(trace)
    writer.close(trace.facts.loop.ended if trace.facts.loop else "")
    if writer.error is not None:
        raise UsageError(f"cannot write a trace to {str(path)!r}: {writer.error.strerror}")
