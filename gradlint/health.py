"""Health: a run in a few numbers a module, with their spread, so that two runs compare.

Each `Measure` says of one metric when in the run it is read, on which scale it is compared, and
which way is worse: up, or away from the documented band. A `Level` is what it was at one place:
the median over a stretch of steps and, as the yardstick, the robust spread around it (1.4826
times the median absolute deviation, which is the standard deviation of normal noise).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Place = tuple[str, str]
"""A metric and the path it was read at."""

Samples = dict[Place, list[tuple[int, float]]]
"""Steps and values."""

EARLY = 10
"""Steps 0 to 10 stand for the beginning: later, gradients shrink because training succeeds."""
LATE = 0.25
"""The last quarter stands for the end."""
SPREADS = 3.0
"""A change counts from three spreads on: of normal noise, 1 in 700 is that far off on one side."""
FEW_RUNS = {2: 6.0, 3: 5.0, 4: 4.5, 5: 4.0, 6: 3.5, 7: 3.5, 8: 3.5, 9: 3.5}
"""Spreads, where few runs tell what one is: their own spread is not well known then (Student
1908). Our choice, tried on six small networks that are well, runs held against others of other
seeds: with three spreads for all, 28 of 768 comparisons with 3 or 5 baseline runs found something
worse. With these and the bands below, on those seeds and on seven new ones at another learning
rate, none of 2076 with 2, 3 or 5 did, and 3 of 588 with a single baseline run."""
FLOOR = -12.0
"""The logarithm of what is zero, or nearly so."""
MAD_TO_STD = 1.4826
QUARTILES_TO_STD = 1 / 1.349
RANGE_TO_STD = (0.0, 0.0, 1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078)
"""Expected range of n normal values in standard deviations (Tippett 1925), n from 0."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How one metric is compared.

    `band` is the documented healthy one; within it nothing is worse. None: up is worse.
    `least` is the least change that counts, in decades where `log`.
    """

    metric: str
    early: bool
    log: bool
    least: float
    band: tuple[float, float] | None = None
    said: str = ""

    def scaled(self, value: float) -> float:
        """Return `value` on the scale on which it is compared."""
        if not self.log or not math.isfinite(value):
            return value
        return max(FLOOR, math.log10(value)) if value > 0 else FLOOR

    def badness(self, scaled: float) -> float:
        """Return how far a scaled value is on the bad side."""
        if self.band is None:
            return scaled
        low, high = (self.scaled(end) for end in self.band)
        return max(low - scaled, scaled - high, 0.0)


MEASURES: Mapping[str, Measure] = {
    measure.metric: measure
    for measure in (
        Measure("loss", early=False, log=False, least=0.0, said="loss at the end"),
        Measure("gradient_decades", True, False, 1.0, said="decades the gradient loses or wins"),
        Measure("gradient_ratio", True, True, 0.5, (1e-3, 1e-1), "gradient to weight at the start"),
        Measure("activation_std", False, True, 0.3, (0.5, 2.0), "activation std at the end"),
        Measure(
            "update_to_weight_ratio", True, True, 0.5, (1e-4, 1e-2), "update to weight at the start"
        ),
        Measure("dead_fraction", False, False, 0.1, (0.0, 0.1), "units that never fire"),
        Measure("saturated_share", False, False, 0.2, said="saturated elements"),
    )
}
"""Bands: gradient ratio and activation std as documented for every layer; updates around 1e-3
(CS231n, "Neural networks part 3"), a decade to either side. Least changes are our choice: a share
of a tenth of the units, a factor of 2 or 3 beyond the band, a decade of the gradient."""


@dataclass(frozen=True, slots=True)
class Level:
    """What one metric was at one place.

    `value` is the median as measured, `scaled` on the scale of the measure; `spread` is in
    units of `scaled`, and so is `least`, the least change that counts.
    """

    metric: str
    place: str
    value: float
    scaled: float
    spread: float
    least: float
    spreads: float = SPREADS

    @property
    def limit(self) -> float:
        """The change that counts."""
        return max(self.least, self.spreads * self.spread)

    @property
    def broken(self) -> bool:
        """Whether there was a NaN or an infinity."""
        return not math.isfinite(self.value)


def change(base: Level, new: Level) -> float:
    """Return by how much `new` is worse than `base`, in units of what counts.

    Above 1 it is worse, below -1 better.
    """
    if base.broken or new.broken:
        return math.inf * (new.broken - base.broken) if new.broken != base.broken else 0.0
    measure = MEASURES[base.metric]
    difference = measure.badness(new.scaled) - measure.badness(base.scaled)
    return difference / base.limit


def allowed(base: Level, new: Level) -> float:
    """Return the value as measured, on the side of `new`, from which on it is worse."""
    measure = MEASURES[base.metric]
    edge = base.scaled + base.limit
    if measure.band is not None:
        low, high = (measure.scaled(end) for end in measure.band)
        room = base.limit + measure.badness(base.scaled)
        edge = high + room if new.broken or new.scaled > high else low - room
    return float(10**edge) if measure.log else edge


def levels(samples: Samples, until: int) -> dict[Place, Level]:
    """Return the level of everything in `samples`, nothing later than step `until`."""
    found: dict[Place, Level] = {}
    for (metric, place), seen in samples.items():
        measure = MEASURES[metric]
        values = [value for _, value in _stretch(seen, measure.early, until)]
        if values:
            found[metric, place] = _level(measure, place, values, seen)
    return found


def _stretch(
    seen: Sequence[tuple[int, float]], early: bool, until: int
) -> Sequence[tuple[int, float]]:
    seen = [pair for pair in seen if pair[0] <= until]
    if early:
        return [pair for pair in seen if pair[0] <= EARLY]
    last = max((step for step, _ in seen), default=0)
    return [pair for pair in seen if pair[0] >= last - math.floor(LATE * last)]


def _level(
    measure: Measure, place: str, values: Sequence[float], seen: Sequence[tuple[int, float]]
) -> Level:
    broken = next((value for value in values if not math.isfinite(value)), None)
    if broken is not None:
        return Level(measure.metric, place, broken, broken, 0.0, measure.least)
    scaled = [measure.scaled(value) for value in values]
    center = statistics.median(scaled)
    spread = _spread(scaled, center)
    least = measure.least
    if measure.metric == "loss":
        first = statistics.median(value for step, value in seen if step == seen[0][0])
        least = _least_loss(center, first)
    median = statistics.median(values)
    return Level(measure.metric, place, median, center, spread, least)


def _spread(values: Sequence[float], center: float) -> float:
    """Return the robust spread: of the absolute deviation and the quartiles the larger.

    Where more than half of the values are the same, as of two batches in turn, the first
    would be 0.
    """
    deviation = MAD_TO_STD * statistics.median(abs(value - center) for value in values)
    if len(values) < 4:
        return deviation
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return max(deviation, (high - low) * QUARTILES_TO_STD)


def _least_loss(end: float, first: float) -> float:
    """A tenth of the loss, or of the way it came, whichever is more.

    Seeds of one network differ by that: a loss that fell from 1.4 ended between 0.013 and 0.15
    (sigmoid layers, 40 steps). Three runs and more tell better.
    """
    way = abs(first - end) if math.isfinite(first) else 0.0
    return max(0.1 * abs(end), 0.1 * way, 1e-12)


def pooled(runs: Sequence[Mapping[Place, Level]]) -> dict[Place, Level]:
    """Return the levels of several runs of the same as one, with their run-to-run spread.

    Of few runs the range tells the spread best; it never falls below that from step to step.
    A place that not every run has is left out.
    """
    first, *others = runs
    if not others:
        return dict(first)
    return {
        place: _pool([run[place] for run in runs])
        for place in first
        if all(place in run for run in others)
    }


def _pool(group: Sequence[Level]) -> Level:
    broken = next((level for level in group if level.broken), None)
    if broken is not None:
        return broken
    scaled = [level.scaled for level in group]
    width = max(scaled) - min(scaled)
    apart = width / RANGE_TO_STD[min(len(group), len(RANGE_TO_STD) - 1)]
    center = statistics.median(scaled)
    least = statistics.median(level.least for level in group)
    if group[0].metric == "loss" and len(group) > 2:
        least = max(0.1 * abs(center), 0.1 * least)
    return replace(
        group[0],
        scaled=center,
        value=statistics.median(level.value for level in group),
        spread=max(apart, statistics.median(level.spread for level in group)),
        least=least,
        spreads=FEW_RUNS.get(len(group), SPREADS),
    )
