"""Trace files read back: as much as was written whole, and nothing a reader need not know."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gradlint.errors import UsageError
from gradlint.facts import Event, Facts, Flow, GraphFacts, ModuleFacts, ParameterFacts
from gradlint.graph import Graph, Operation
from gradlint.observation import Observation, Site
from gradlint.trace import Trace
from gradlint.trace_records import number_in, record_in

SCHEMA = "gradlint.trace/1"

UNCLOSED = "killed"
"""How a loop ended whose file nobody closed."""


@dataclass(frozen=True)
class Header:
    """The first line of a trace file."""

    versions: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """A trace with what its file says of itself; `ended` is None if it was not closed."""

    trace: Trace
    versions: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    ended: str | None = None


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Return the trace in the file `path`; empty if nothing had been observed.

    A last line that was cut off is left out. A loop whose file was not closed ended
    "killed".

    Raises:
        UsageError: If there is no trace in `path`; says why in one sentence.
    """
    return read_recorded(path).trace


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return what the first line of the trace file `path` says; reads no more of it.

    Raises:
        UsageError: If there is no trace in `path`.
    """
    try:
        with open(path, "rb") as file:
            return _header(Path(path), file.readline())
    except OSError as error:
        raise _unreadable(Path(path), error) from error


def check_place(path: Path) -> None:
    """Refuse a place where something other than a trace would be lost."""
    if path.is_dir():
        raise UsageError(f"expected a file for the trace, got the folder {str(path)!r}")
    if not path.parent.is_dir():
        raise UsageError(f"expected a folder at {str(path.parent)!r} for the trace, found none")
    if path.is_file() and path.stat().st_size > 0:
        try:
            read_header(path)
        except UsageError:
            raise UsageError(
                f"{str(path)!r} is there already and is no trace: name another file for it"
            ) from None


def read_recorded(path: str | os.PathLike[str]) -> Recorded:
    """Return the trace in the file `path`, with its versions, its target and its end.

    Raises:
        UsageError: If there is no trace in `path`.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise _unreadable(path, error) from error
    header = _header(path, lines[0])
    reader = _Reader(dict(header.target))
    whole, rest = lines[1:-1], lines[-1]
    for number, line in enumerate(whole, start=2):
        try:
            reader.take(json.loads(line))
        except _MISTAKES as error:
            if number == len(whole) + 1 and not rest:  # cut off by a crash of the machine
                break
            raise UsageError(
                f"{str(path)!r}: line {number} is not as a trace has it: {error or type(error)}"
            ) from error
    return reader.recorded(header.versions)


_MISTAKES = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


def _unreadable(path: Path, error: OSError) -> UsageError:
    if path.is_dir():
        return UsageError(f"expected a file, got the folder {str(path)!r}")
    if isinstance(error, FileNotFoundError):
        return UsageError(f"no such file: {str(path)!r}")
    return UsageError(f"cannot read {str(path)!r}: {error.strerror}")


def _header(path: Path, line: bytes) -> Header:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        data = None
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, str) and schema.startswith("gradlint.trace/") and schema != SCHEMA:
        raise UsageError(
            f"{str(path)!r} has schema {schema!r}, this gradlint reads {SCHEMA!r}: "
            "read it with the gradlint that wrote it"
        )
    if schema != SCHEMA:
        raise UsageError(f"{str(path)!r} is no trace of gradlint: expected schema {SCHEMA!r}")
    versions, target = data.get("versions", {}), data.get("target", {})
    return Header(
        {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        target if isinstance(target, dict) else {},
    )


class _Reader:
    """Takes one line after another."""

    def __init__(self, target: dict[str, Any]) -> None:
        self.target = target
        self.ended: str | None = None
        self.observations: list[Observation] = []
        self.sites: list[Site] = []
        self.layouts: list[tuple[tuple[str, Site], ...]] = []
        self.modules: dict[str, ModuleFacts] = {}
        self.parameters: dict[str, ParameterFacts] = {}
        self.graph = Graph()
        self.facts: dict[str, Any] = {}
        self.flows: list[Flow] = []
        self.events: list[Event] = []
        self.later: list[GraphFacts] = []

    def take(self, record: Any) -> None:
        """Add what one line says."""
        if not isinstance(record, dict):
            raise ValueError(f"expected an object, got {record!r:.40}")
        take = _TAKERS.get(next(iter(record), ""))
        if take is not None:
            take(self, record)

    def _structure(self, record: dict[str, Any]) -> None:
        if "modules" in record:
            self.modules = {k: record_in(ModuleFacts, v) for k, v in record["modules"]}
        if "parameters" in record:
            self.parameters = {k: record_in(ParameterFacts, v) for k, v in record["parameters"]}
        if "graph" in record:
            self.graph = _graph(record["graph"])

    def _facts(self, record: dict[str, Any]) -> None:
        record_in(Facts, self.facts | record["facts"])
        self.facts |= record["facts"]

    def _flows(self, record: dict[str, Any]) -> None:
        self.flows[record["at"] :] = [record_in(Flow, flow) for flow in record["flows"]]

    def _events(self, record: dict[str, Any]) -> None:
        self.events[record["at"] :] = [record_in(Event, event) for event in record["events"]]

    def _later(self, record: dict[str, Any]) -> None:
        found = [record_in(GraphFacts, seen) for seen in record["later"]]
        for seen in found:
            _check_order(seen.operations)
        self.later[record["at"] :] = found

    def _sites(self, record: dict[str, Any]) -> None:
        self.sites += [Site(*_site(entry[:4])) for entry in record["sites"]]

    def _layout(self, record: dict[str, Any]) -> None:
        layout = tuple((str(m), self.sites[i]) for m, run in record["layout"] for i in run)
        self.layouts.append(layout)

    def _step(self, record: dict[str, Any]) -> None:
        step, layout, values = record["step"], self.layouts[record["of"]], record["values"]
        if type(step) is not int or step < 0:
            raise ValueError(f"expected the number of a step, got {step!r:.40}")
        self.observations += [
            Observation(metric, site, step, number_in(value))
            for (metric, site), value in zip(layout, values, strict=True)
        ]

    def _described(self, record: dict[str, Any]) -> None:
        self.target = dict(record["target"])

    def _ended(self, record: dict[str, Any]) -> None:
        self.ended = str(record["ended"])

    def recorded(self, versions: Mapping[str, str]) -> Recorded:
        """Return what all lines say together."""
        facts: Facts = record_in(Facts, self.facts)
        facts = replace(
            facts,
            flows=tuple(self.flows),
            events=tuple(self.events),
            later=tuple(self.later),
        )
        if facts.loop is not None:
            ended = facts.loop.ended or UNCLOSED if self.ended is None else self.ended
            facts = replace(facts, loop=replace(facts.loop, ended=ended))
        trace = Trace(
            self.observations,
            modules=self.modules,
            parameters=self.parameters,
            graph=self.graph,
            facts=facts,
        )
        return Recorded(trace, versions, self.target, self.ended)


def _graph(entries: Any) -> Graph:
    operations: tuple[Operation, ...] = tuple(record_in(Operation, entry) for entry in entries)
    _check_order(operations)
    return Graph(operations)


def _check_order(operations: Iterable[Operation]) -> None:
    known: set[int] = set()
    for op in operations:
        if not known.issuperset(op.inputs):
            raise ValueError(f"operation {op.id} reads what does not come before it")
        known.add(op.id)


def _site(entry: Any) -> tuple[str, str, int, str]:
    path, kind, depth, module = entry
    if not (isinstance(path, str) and isinstance(kind, str) and isinstance(module, str)):
        raise ValueError(f"expected a site, got {entry!r:.60}")
    if type(depth) is not int:
        raise ValueError(f"expected a depth, got {depth!r:.40}")
    return path, kind, depth, module


_TAKERS: dict[str, Callable[[_Reader, dict[str, Any]], None]] = {
    "target": _Reader._described,
    "modules": _Reader._structure,
    "parameters": _Reader._structure,
    "graph": _Reader._structure,
    "facts": _Reader._facts,
    "flows": _Reader._flows,
    "events": _Reader._events,
    "later": _Reader._later,
    "sites": _Reader._sites,
    "layout": _Reader._layout,
    "step": _Reader._step,
    "ended": _Reader._ended,
}
