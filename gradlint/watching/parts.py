"""Parts: what one rank of a distributed run hands to the first, as numbers; no torch here."""

from __future__ import annotations

import json
import math
import statistics
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gradlint.facts import Event
from gradlint.trace import Trace
from gradlint.trace_records import record_in, record_out

VERSION = 1

SHARD_METRICS = ("gradient_norm", "weight_norm", "update_to_weight_ratio")
"""Numbers of each shard that make the whole tensor's."""

EARLY = 10
AT_MOST = 48
"""Steps whose shards are handed over one by one: the first ones, then about so many."""

Place = tuple[str, str]
"""A metric's name and the path of its site."""


@dataclass(frozen=True, slots=True)
class Points:
    """Values of one metric at one place, by step."""

    metric: str
    path: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """Hashes of all parameters, and of their gradients, at the beginning of one update.

    `optimizer` and `own` (its own count of steps) tell whether two ranks were at the same
    place of their program. `copies` names the ranks that must hold the same bits; where
    it does not name a parameter, nobody promised that they do.
    """

    step: int
    optimizer: str
    own: int
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    gradients: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    copies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank saw."""

    version: int
    rank: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    local: Mapping[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    losses: tuple[Points, ...] = ()
    looked: tuple[int, ...] = ()
    """Steps whose shards stand in `shards`."""
    shards: tuple[Points, ...] = ()
    squares: tuple[Points, ...] = ()
    """Sums of squared norms over the parameters whose parts the same ranks hold: `path` is
    those ranks, with commas, "" for what every rank holds whole."""
    events: tuple[Event, ...] = ()
    fault: str = ""
    """See `LoopFacts`."""

    def encoded(self) -> bytes:
        """Return the part as bytes."""
        return zlib.compress(json.dumps(record_out(self)).encode(), 1)


def decoded(value: bytes) -> Part:
    """Return the part that `encoded` made `value` of.

    Raises:
        ValueError: If it made none such, or another version did.
    """
    try:
        part: Part = record_in(Part, json.loads(zlib.decompress(value)))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if part.version != VERSION:
        raise ValueError(f"expected version {VERSION}, got {part.version}")
    return part


def group_key(ranks: Iterable[int]) -> str:
    """Return ranks as one word."""
    return ",".join(map(str, ranks))


def part_of(
    trace: Trace,
    rank: int,
    shares: Mapping[str, tuple[int, ...]],
    checks: Iterable[Check],
    more: Iterable[Points] = (),
) -> Part:
    """Return what a rank hands over.

    Args:
        trace: What it saw, with the paths that all ranks use.
        rank: The rank.
        shares: By path, the ranks among which a parameter is split.
        checks: Hashes.
        more: Squares that the trace does not hold.
    """
    return Part(
        version=VERSION,
        rank=rank,
        shapes={path: facts.shape for path, facts in trace.parameters.items()},
        local=_local(trace),
        checks=tuple(checks),
        losses=tuple(
            _points(metric, path, values)
            for (metric, path), values in table(trace, ("loss", "stream_loss")).items()
        ),
        looked=tuple(handed_steps(trace)) if shares else (),
        shards=_shards(trace, shares),
        squares=(*_totals(trace, shares), *more),
        events=tuple(e for e in trace.facts.events if e.name == "non-finite"),
        fault=trace.facts.loop.fault if trace.facts.loop is not None else "",
    )


def table(trace: Trace, metrics: Iterable[str]) -> dict[Place, dict[int, float]]:
    """Return the values of `metrics` by place and step."""
    found: dict[Place, dict[int, float]] = {}
    for metric in metrics:
        for seen in trace.of(metric):
            found.setdefault((metric, seen.site.path), {})[seen.step] = seen.value
    return found


def handed_steps(trace: Trace) -> list[int]:
    """Return the looked-at steps whose shards are handed over.

    Which steps those are follows from their numbers, so that ranks agree: the first ones and
    the multiples of a power of two.
    """
    steps = sorted({seen.step for seen in trace.of("weight_norm")})
    grid = 1
    while steps and steps[-1] / grid > AT_MOST:
        grid *= 2
    return [step for step in steps if step <= EARLY or step % grid == 0]


def _shards(trace: Trace, shares: Mapping[str, tuple[int, ...]]) -> tuple[Points, ...]:
    if not shares:
        return ()
    kept = set(handed_steps(trace))
    return tuple(
        _points(metric, path, {s: v for s, v in values.items() if s in kept})
        for (metric, path), values in table(trace, SHARD_METRICS).items()
        if path in shares
    )


def _totals(trace: Trace, shares: Mapping[str, tuple[int, ...]]) -> list[Points]:
    """Return the squared gradient norms, summed over the parameters of each group of ranks."""
    if not shares:
        return []
    sums: dict[str, dict[int, float]] = {}
    for seen in trace.of("gradient_norm"):
        group = sums.setdefault(group_key(shares.get(seen.site.path, ())), {})
        group[seen.step] = group.get(seen.step, 0.0) + seen.value**2
    return [_points("total_gradient_norm", key, values) for key, values in sums.items()]


def _points(metric: str, path: str, values: Mapping[int, float]) -> Points:
    return Points(metric, path, tuple(values), tuple(values.values()))


def _local(trace: Trace) -> dict[str, float]:
    """Return the medians that ranks are compared by."""
    found: dict[str, float] = {}
    for metric in ("loss", "activation_grad_norm"):
        values = [seen.value for seen in trace.of(metric).training]
        if values:
            finite = [v for v in values if math.isfinite(v)]
            found[metric] = statistics.median(finite) if finite else math.nan
    return found
