"""Profiles of the gradient's norm over depth, out of the flows of single steps. No rule here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gradlint.trace import Flow, Trace

MIN_LAYERS = 4
"""Fewer weight layers make no profile: a first quarter, a last quarter, something between."""

LARGEST_SHARE = 0.5
"""A profile of which one layer makes more than half is a bottleneck, not a geometric series."""

LARGEST_PAIR, MIN_BETWEEN = 0.75, 5
"""Nor is one of which two of at least so many layers make more than that: the small last layers
of an actor and of the critic behind it (Lillicrap et al. 2015, section 7: 3e-3 on purpose)."""


@dataclass(frozen=True, slots=True)
class Slope:
    """How the gradient's norm changes from the layers near the loss to the early ones.

    `decades` is negative where it shrinks. `early` and `late` are the layers compared,
    `between` the number of layers the gradient passes from one to the other.
    """

    step: int
    decades: float
    shares: tuple[float, ...]
    """What each layer in between makes of it, the largest share first."""
    early: Flow
    late: Flow
    flows: tuple[Flow, ...]

    @property
    def geometric(self) -> bool:
        """Whether several layers share the change."""
        if len(self.shares) >= MIN_BETWEEN and sum(self.shares[:2]) > LARGEST_PAIR:
            return False
        return self.shares[0] <= LARGEST_SHARE

    @property
    def between(self) -> int:
        """Layers from the early one to the late one."""
        return self.flows.index(self.late) - self.flows.index(self.early)

    @property
    def shown_early(self) -> Flow:
        """The earliest layer, unless it is off the profile that the slope was read from."""
        return self._outermost(self.flows[0], self.early)

    @property
    def shown_late(self) -> Flow:
        """The last layer, unless it is off the profile that the slope was read from."""
        return self._outermost(self.flows[-1], self.late)

    def _outermost(self, end: Flow, compared: Flow) -> Flow:
        """Return `end`, or `compared` if `end` is off the profile.

        A query projection or a rescaled branch may stand at an end and get far less than its
        neighbors: more than twice what the layers in between would take away.
        """
        gap = abs(self.flows.index(end) - self.flows.index(compared))
        allowed = 2 * (gap + 1) * abs(self.decades) / max(1, self.between)
        return compared if abs(end.blamed - compared.blamed) > allowed else end

    def decades_by_kind(self) -> dict[str, float]:
        """Decades between the two layers shown, by kind of operation."""
        early, late = self.shown_early.decades, self.shown_late.decades
        kinds = sorted({*early, *late} - {"loss"})
        found = {k: early.get(k, 0.0) - late.get(k, 0.0) for k in kinds}
        return {k: v for k, v in found.items() if abs(v) >= 0.005}

    @property
    def shown_decades(self) -> float:
        """Decades between the two layers shown, structural operations left out."""
        return self.shown_early.blamed - self.shown_late.blamed

    @property
    def per_layer(self) -> float:
        """Factor per layer, the geometric mean."""
        gap = self.flows.index(self.shown_late) - self.flows.index(self.shown_early)
        return float(10.0 ** (self.shown_decades / max(1, gap)))


def profiles(trace: Trace) -> Iterator[tuple[Flow, ...]]:
    """Yield the flows of one backward pass after another, each in forward order."""
    current: list[Flow] = []
    seen: set[str] = set()
    for flow in trace.facts.flows:
        if current and (flow.step != current[0].step or flow.site.path in seen):
            yield tuple(current)
            current, seen = [], set()
        current.append(flow)
        seen.add(flow.site.path)
    if current:
        yield tuple(current)


def shrinking(flows: Sequence[Flow]) -> Slope | None:
    """Return how the gradient shrinks toward the first layers, by the best-fed layers.

    The best-fed layer of the first quarter is compared with the best-fed of the last:
    branches that are scaled down on purpose, zero-initialized ones and query projections
    are never the best-fed.
    """
    return _slope(flows, max)


def growing(flows: Sequence[Flow]) -> Slope | None:
    """Return how the gradient grows toward the first layers.

    The median layer of the first quarter is compared with the best-fed of the last, so that
    no single layer of tiny weights in front of a normalization makes an explosion.
    """
    return _slope(flows, statistics.median_high)


def _slope(flows: Sequence[Flow], choose: Callable[[list[float]], float]) -> Slope | None:
    if len(flows) < MIN_LAYERS:
        return None
    values = [f.blamed for f in flows]
    quarter = max(1, len(values) // 4)
    early = values.index(choose(values[:quarter]))
    late = len(values) - quarter + values[-quarter:].index(max(values[-quarter:]))
    decades = values[early] - values[late]
    return Slope(
        step=flows[0].step,
        decades=decades,
        shares=_shares(values[early : late + 1]),
        early=flows[early],
        late=flows[late],
        flows=tuple(flows),
    )


def _shares(values: Sequence[float]) -> tuple[float, ...]:
    """Return the share of every single step in the monotone envelope of `values`, largest first.

    For a rising profile (a gradient that shrinks toward the first layers) the envelope is
    the running maximum from the first layer on; for a falling one it runs from the last.
    """
    first, last = values[0], values[-1]
    if first == last:
        return (1.0,)
    ordered = values if last > first else values[::-1]
    top = ordered[-1]
    level, found = ordered[0], []
    for value in ordered[1:]:
        reached = min(max(level, value), top)
        found.append((reached - level) / abs(last - first))
        level = reached
    return tuple(sorted(found, reverse=True))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Median slopes at the initialization and over the later half of training (None: unseen)."""

    initial: Slope | None
    later: Slope | None

    @property
    def both(self) -> tuple[Slope, ...]:
        """Those observed."""
        return tuple(s for s in (self.initial, self.later) if s is not None)


def over_time(trace: Trace, measure: Callable[[Sequence[Flow]], Slope | None]) -> Verdict:
    """Return the median slope of step 0's batches and of the later half of the training."""
    found = [s for flows in profiles(trace) if (s := measure(flows)) is not None]
    last = max((s.step for s in found), default=0)
    initial = [s for s in found if s.step == 0]
    later = [s for s in found if s.step > 0 and 2 * s.step >= last]
    return Verdict(_median(initial), _median(later))


def _median(slopes: list[Slope]) -> Slope | None:
    ordered = sorted(slopes, key=lambda s: s.decades)
    return ordered[len(ordered) // 2] if ordered else None


def unfed(trace: Trace, slope: Slope) -> tuple[str, ...]:
    """Weight layers in front of the profile whose gradient is exactly zero at its step."""
    seen = {
        o.site.path: o.value for o in trace.of("pre_activation_grad_norm") if o.step == slope.step
    }
    known = {f.site.path for f in slope.flows}
    found: list[str] = []
    for op in trace.weight_layers():
        path = op.module or ""
        if path == slope.flows[0].site.path:
            break
        if path not in known and seen.get(path, 0.0) == 0.0:
            found.append(path)
    return tuple(dict.fromkeys(found))
