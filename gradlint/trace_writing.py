"""TraceWriter: a run as JSON lines, written while it goes on; `trace_file` says what they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from gradlint.errors import UsageError
from gradlint.facts import Facts, ModuleFacts, ParameterFacts
from gradlint.graph import Graph
from gradlint.observation import Observation, Site
from gradlint.report import versions as default_versions
from gradlint.report_json import encode, plain
from gradlint.thinning import AT_MOST, SERIES_AT_MOST, thinned
from gradlint.trace import Trace
from gradlint.trace_reading import SCHEMA, check_place
from gradlint.trace_records import number_out, record_out

MAX_BYTES = 32 * 2**20
LEAST_STEPS = 16
INCREMENTAL = ("flows", "events", "later")
_NEW = object()

Layout = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class _Told:
    """What the file says already."""

    until: int = -1
    sites: dict[Site, int] = field(default_factory=dict)
    new_sites: list[Site] = field(default_factory=list)
    layouts: dict[Layout, int] = field(default_factory=dict)
    structure: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, tuple[Any, ...]] = field(
        default_factory=lambda: dict.fromkeys(INCREMENTAL, ())
    )


class TraceWriter:
    """Writes a trace line by line; each is handed to the system before the call returns.

    A file that cannot be written any more (a full disk) ends the writing, not the run that
    is watched: `error` then says why.

    Args:
        path: The file; an older trace there is replaced, anything else is not.
        versions: As in a report; of what is installed by default.
        target: What is watched, fields of a report's target; `describe` adds to it.
        max_bytes: What `compact` keeps the file below.

    Raises:
        UsageError: If the file cannot be written, or is there and is no trace.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        versions: Mapping[str, str] | None = None,
        target: Mapping[str, Any] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.max_bytes = max_bytes
        self.error: OSError | None = None
        self._versions = dict(default_versions() if versions is None else versions)
        self._target: dict[str, Any] = encode(plain(target or {}))
        self._limit = max_bytes
        self._file: BinaryIO | None = None
        check_place(Path(path))
        try:
            self._start(self.path)
        except OSError as error:
            raise UsageError(f"cannot write a trace to {str(path)!r}: {error.strerror}") from error
        self._bounded = self.path.is_file()

    @property
    def size(self) -> int:
        """Bytes written to the file so far."""
        return self._size

    @property
    def full(self) -> bool:
        """Whether the file has grown so large that `compact` would rewrite it."""
        return self._bounded and self._size > self._limit

    def describe(self, **target: Any) -> None:
        """Add fields to the target."""
        known = self._target | encode(plain(target))
        if known != self._target:
            self._target = known
            self._write({"target": known})

    def structure(
        self,
        modules: Mapping[str, ModuleFacts],
        parameters: Mapping[str, ParameterFacts],
        graph: Graph,
    ) -> None:
        """Write what changed of modules, parameters and graph, on one line: they fit each other."""
        record: dict[str, Any] = {}
        for name, table in (("modules", modules), ("parameters", parameters)):
            if table != self._told.structure.get(name, {}):
                self._told.structure[name] = dict(table)
                record[name] = [[key, record_out(value)] for key, value in table.items()]
        if graph.operations != self._told.structure.get("graph", ()):
            self._told.structure["graph"] = graph.operations
            record["graph"] = [record_out(op) for op in graph]
        if record:
            self._write(record)

    def facts(self, facts: Facts) -> None:
        """Write what changed of the facts."""
        coded = record_out(replace(facts, flows=(), events=(), later=()), whole=True)
        now = {key: value for key, value in coded.items() if key not in INCREMENTAL}
        changed = {
            key: value for key, value in now.items() if self._told.facts.get(key, _NEW) != value
        }
        if changed:
            self._told.facts = now
            self._write({"facts": changed})
        for key in INCREMENTAL:
            self._append(key, getattr(facts, key))

    def _append(self, key: str, entries: Sequence[Any]) -> None:
        written = self._told.entries[key]
        same = 0
        for old, new in zip(written, entries, strict=False):
            if old is not new and old != new:
                break
            same += 1
        if len(entries) != len(written) or same < len(entries):
            self._told.entries[key] = tuple(entries)
            self._write({key: [record_out(entry) for entry in entries[same:]], "at": same})

    def step(self, number: int, observations: Iterable[Observation]) -> None:
        """Write observations of step `number`; those of another step stay that step's."""
        for step, seen in groupby(observations, key=lambda o: o.step):
            self._write_step(step, tuple(seen))

    def _write_step(self, step: int, observations: Sequence[Observation]) -> None:
        places = [(seen.metric, self._site(seen.site)) for seen in observations]
        if self._told.new_sites:
            sites = [[s.path, s.kind, s.depth, s.module] for s in self._told.new_sites]
            self._told.new_sites.clear()
            self._write({"sites": sites})
        layout = tuple(
            (metric, tuple(site for _, site in run))
            for metric, run in groupby(places, key=lambda place: place[0])
        )
        if layout not in self._told.layouts:
            self._told.layouts[layout] = len(self._told.layouts)
            self._write({"layout": layout})
        values = [number_out(seen.value) for seen in observations]
        self._write({"step": step, "of": self._told.layouts[layout], "values": values})

    def _site(self, site: Site) -> int:
        if site not in self._told.sites:
            self._told.sites[site] = len(self._told.sites)
            self._told.new_sites.append(site)
        return self._told.sites[site]

    def follow(self, trace: Trace, until: int) -> None:
        """Write what is new in `trace`, a run that goes on, up to step `until`.

        Steps up to the one given last time are taken to be written.
        """
        self.structure(trace.modules, trace.parameters, trace.graph)
        self.facts(trace.facts)
        told = self._told.until
        self.step(until, [seen for seen in trace if told < seen.step <= until])
        self._told.until = max(told, until)
        if self.full:
            self.compact(trace.but(observations=tuple(o for o in trace if o.step <= until)))
            self._told.until = until

    def whole(self, trace: Trace) -> None:
        """Make the file say what `trace` says and nothing else, thinned if that is too much.

        A reader finds either the old file or the new one, each whole.
        """
        if self._bounded and self._told.layouts:
            self._replace(trace, trace, enough=self.max_bytes)
        elif self._told.layouts:  # a pipe: what is out is out
            self._everything(trace, ())
        else:
            self._everything(trace, trace)

    def compact(self, trace: Trace) -> bool:
        """Replace a file that grew beyond `max_bytes` by `trace`, thinned; tell whether it did.

        `trace` is all that was written. Half of `max_bytes` is aimed at; where even few steps
        do not fit in there, the file may grow to twice what they take.
        """
        if not self.full or self._file is None:
            return False
        self._replace(trace, thinned(trace), enough=self.max_bytes // 2)
        return self.error is None

    def _replace(self, trace: Trace, kept: Iterable[Observation], *, enough: int) -> None:
        if self._file is None:
            return
        new = self.path.with_name(f"{self.path.name}.new")
        at_most, series = AT_MOST, SERIES_AT_MOST
        try:
            while True:
                self._start(new)
                self._everything(trace, kept)
                if self._size <= enough or at_most < LEAST_STEPS or self._file is None:
                    break
                kept = thinned(trace, at_most=at_most, series_at_most=series)
                at_most, series = at_most // 2, max(series // 2, at_most)
            if self._file is not None:
                self._file.close()
                os.replace(new, self.path)
                self._file = open(self.path, "ab")  # noqa: SIM115
        except OSError as error:
            self._give_up(error)
        with suppress(OSError):
            new.unlink(missing_ok=True)
        self._limit = max(self.max_bytes, 2 * self._size)

    def _everything(self, trace: Trace, observations: Iterable[Observation]) -> None:
        self.structure(trace.modules, trace.parameters, trace.graph)
        self.step(0, observations)
        self.facts(trace.facts)

    def close(self, ended: str = "") -> None:
        """Write how the run ended, as in `LoopFacts`, and close the file."""
        self._write({"ended": ended})
        if self._file is not None:
            self._file.close()
            self._file = None

    def _start(self, path: Path) -> None:
        """Begin a file anew; nothing has been written of anything."""
        if self._file is not None:
            self._file.close()
        self._size = 0
        self._told = _Told()
        self._file = open(path, "wb")  # noqa: SIM115
        self._write({"schema": SCHEMA, "versions": self._versions, "target": self._target})

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self._give_up(error)
        self._size += len(line)

    def _give_up(self, error: OSError) -> None:
        self.error = error
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
