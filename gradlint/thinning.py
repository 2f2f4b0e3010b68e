"""Thinning: which steps of a long run are kept, dense at both ends, log-spaced in between."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Sequence

from gradlint.observation import Observation

KEEP_FIRST = 32
KEEP_LAST = 64
AT_MOST = 512
SERIES_AT_MOST = 4096
"""Our choice: at 200 sites with 10 metrics each, 512 steps are a million numbers, some 20 MB;
a series of the whole run (the loss) is one number a step, and spikes are looked for in it."""

SERIES = frozenset({"stream_loss"})
"""Metrics that are one number a step, though not at the model's own site."""


def kept_steps(
    steps: Iterable[int],
    keep_first: int = KEEP_FIRST,
    keep_last: int = KEEP_LAST,
    at_most: int = AT_MOST,
    always: Collection[int] = (),
) -> frozenset[int]:
    """Return which of `steps` to keep.

    The first and the last step are kept whatever is asked. In between, that step goes
    first whose neighbors are nearest to each other on a logarithmic scale, so what is left is
    log-spaced, and thinning again, when steps have been added, keeps it so.

    Args:
        steps: Any steps, in any order.
        keep_first: Kept at the beginning, if `at_most` has room for them.
        keep_last: Kept at the end, likewise.
        at_most: How many are kept; 2 at least.
        always: Steps kept if they are among `steps`; they count.

    Example:
        >>> sorted(kept_steps(range(1000), keep_first=2, keep_last=2, at_most=10))
        [0, 1, 4, 10, 38, 102, 230, 486, 998, 999]
    """
    ordered = sorted(set(steps))
    at_most = max(2, at_most)
    if len(ordered) <= at_most:
        return frozenset(ordered)
    first = max(1, min(keep_first, at_most // 4))
    last = max(1, min(keep_last, at_most // 2))
    safe = {*ordered[:first], *ordered[-last:], *always}
    return frozenset(_sparse(ordered, safe, at_most))


def _sparse(ordered: Sequence[int], safe: Collection[int], at_most: int) -> list[int]:
    """Drop steps until `at_most` are left, always the one in the narrowest gap."""
    before = list(range(-1, len(ordered) - 1))
    after = list(range(1, len(ordered) + 1))

    def gap(i: int) -> float:
        return math.log1p(ordered[after[i]]) - math.log1p(ordered[before[i]])

    heap = [(gap(i), i) for i in range(1, len(ordered) - 1) if ordered[i] not in safe]
    heapq.heapify(heap)
    gone: set[int] = set()
    while heap and len(ordered) - len(gone) > at_most:
        width, i = heapq.heappop(heap)
        if width != gap(i):  # a neighbor went since
            heapq.heappush(heap, (gap(i), i))
            continue
        gone.add(i)
        after[before[i]] = after[i]
        before[after[i]] = before[i]
    return [step for i, step in enumerate(ordered) if i not in gone]


def thinned(
    observations: Iterable[Observation],
    keep_first: int = KEEP_FIRST,
    keep_last: int = KEEP_LAST,
    at_most: int = AT_MOST,
    series_at_most: int = SERIES_AT_MOST,
) -> tuple[Observation, ...]:
    """Return `observations` without most of the middle of a long run, in their order.

    Every metric is thinned by itself at every site, so that what is read seldom is kept, and
    so are its first and its last step; the same steps give the same choice at every site.
    Of a series (what is read at the model's site, one number a step) `series_at_most` steps are
    kept, with the first non-finite and the largest value among them.

    Args:
        observations: Of any run.
        keep_first: Steps kept at the beginning.
        keep_last: Steps kept at the end.
        at_most: Steps kept at all, for each metric at each site.
        series_at_most: The same for series.
    """
    observations = tuple(observations)
    steps: dict[tuple[str, str], dict[int, float]] = {}
    for seen in observations:
        steps.setdefault((seen.metric, seen.site.path), {})[seen.step] = seen.value
    chosen: dict[tuple[int, tuple[int, ...]], frozenset[int]] = {}
    kept: dict[tuple[str, str], frozenset[int]] = {}
    for (metric, path), values in steps.items():
        series = path == "" or metric in SERIES
        limit = series_at_most if series else at_most
        if len(values) <= limit:
            kept[metric, path] = frozenset(values)
        elif series:
            kept[metric, path] = kept_steps(values, keep_first, keep_last, limit, _marked(values))
        else:
            key = (limit, tuple(values))
            if key not in chosen:
                chosen[key] = kept_steps(values, keep_first, keep_last, limit)
            kept[metric, path] = chosen[key]
    return tuple(o for o in observations if o.step in kept[o.metric, o.site.path])


def _marked(values: dict[int, float]) -> set[int]:
    """Return the steps of the largest finite value and of the first non-finite one."""
    finite = {step: value for step, value in values.items() if math.isfinite(value)}
    marked = {max(finite, key=lambda step: finite[step])} if finite else set()
    broken = [step for step in values if step not in finite]
    return marked | {min(broken)} if broken else marked
