"""Learning rates of a loop by optimizer, with the losses beside them. No rule here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gradlint.rules._loop import by_stream
from gradlint.rules._losses import progress
from gradlint.rules._series import points
from gradlint.trace import Trace

Rates = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Stream:
    """The steps of one optimizer, or of all in a loop with one loss: its rates and losses.

    `start` is the first loss, `late` the median over the last quarter; both NaN if unknown.
    """

    name: str
    rates: Rates
    losses: Rates
    start: float
    late: float

    def learned(self, falling: Rates, peak: float) -> bool:
        """Whether the loss had come down, or had stopped falling, before the rate was low."""
        if not self.start > 0:
            return False
        low = next(step for step, rate in falling if rate < peak / 3)
        around = [v for step, v in self.losses if abs(step - low) <= 2]
        at_low = statistics.median(around) if around else math.inf
        stopped = at_low < 0.8 * self.start and self.late > 0.95 * at_low
        return self.late <= 0.1 * self.start or stopped

    @property
    def outcome(self) -> str:
        """What became of the loss, for a message; empty if unknown."""
        known = f"; the loss went from {self.start:.2g} to {self.late:.2g}"
        return "" if math.isnan(self.late) else known


def rate_streams(trace: Trace) -> Iterator[Stream]:
    """Yield the rates of each optimizer by itself, steps counted as its own."""
    loop = trace.facts.loop
    if loop is None or loop.streams <= 1:
        start, late = progress(trace) or (math.nan, math.nan)
        rates = after_last_sweep(points(trace, "learning_rate"))
        yield Stream("", rates, points(trace, "loss"), start, late)
        return
    every = by_stream(trace, trace.of("learning_rate").at("").training)
    for name, seen in every.items():
        losses = [v for _, v in points(trace, "stream_loss", name)]
        known = bool(losses) and bool(name)
        yield Stream(
            name,
            after_last_sweep(list(enumerate((o.value for o in seen), start=1))),
            list(enumerate(losses, start=1)),
            statistics.median(losses[:3]) if known else math.nan,
            statistics.median(losses[-max(3, len(losses) // 4) :]) if known else math.nan,
        )


def constant_factor(falling: Rates) -> float | None:
    """Return the factor that multiplies the rate at (nearly) every step; None if there is none.

    What is below a millionth of the peak is left out: schedules have a floor there, and rates
    underflow.
    """
    peak = falling[0][1]
    logs = [
        math.log(b / a) / (t - s)
        for (s, a), (t, b) in pairwise(falling)
        if a > 1e-6 * peak and b > 0
    ]
    if len(logs) < 3:
        return None
    usual = statistics.median(logs)
    alike = sum(abs(x - usual) <= 0.02 * abs(usual) for x in logs)
    return math.exp(usual) if usual < 0 and alike >= 0.9 * len(logs) else None


def after_last_sweep(rates: Rates) -> Rates:
    """Return the rates after the last sweep: a rise that ends in one drop by more than thirty."""
    start = 0
    for i in range(2, len(rates)):
        rising = rates[i - 1][1] > 1.0001 * rates[i - 2][1]
        if rising and 0 < rates[i][1] < rates[i - 1][1] / 30:
            start = i
    return rates[start:]
