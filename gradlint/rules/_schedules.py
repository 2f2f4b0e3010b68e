"""Learning rates of a loop by optimizer, with the losses beside them. No rule here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
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

    def learned(self, falling: Rates, peak: float, *, stopped: bool = True) -> bool:
        """Whether the loss had come down before the rate was low; or, if asked, had `stopped`."""
        if not self.start > 0:
            return False
        low = next(step for step, rate in falling if rate < peak / 3)
        around = [v for step, v in self.losses if abs(step - low) <= 2]
        at_low = statistics.median(around) if around else math.inf
        stopped = stopped and at_low < 0.8 * self.start and self.late > 0.95 * at_low
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
        losses = points(trace, "loss")
        every = [step for step, _ in losses] or range(1, min(loop.steps if loop else 0, _MOST) + 1)
        rates = after_last_sweep(_held(points(trace, "learning_rate"), every))
        yield Stream("", rates, losses, start, late)
        return
    for name, seen in by_stream(trace, trace.of("learning_rate").at("").training).items():
        own = points(trace, "stream_loss", name) if name else []
        held = _held([(o.step, o.value) for o in seen], [step for step, _ in own])
        values = [v for _, v in own]
        yield Stream(
            name,
            after_last_sweep([(i, rate) for i, (_, rate) in enumerate(held, start=1)]),
            list(enumerate(values, start=1)),
            statistics.median(values[:3]) if values else math.nan,
            statistics.median(values[-max(3, len(values) // 4) :]) if values else math.nan,
        )


_MOST = 8192


def _held(rates: Rates, steps: Iterable[int]) -> Rates:
    """Return the rate at each of `steps`, too: one that is not there has not changed."""
    known = dict(rates)
    filled: list[tuple[int, float]] = []
    for step in sorted({*steps, *known}):
        if step in known or filled:
            filled.append((step, known.get(step, filled[-1][1] if filled else 0.0)))
    return filled


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
