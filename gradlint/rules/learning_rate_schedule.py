"""A learning rate that is gone long before the run ends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._losses import progress
from gradlint.rules._optimizer import given
from gradlint.rules._series import points
from gradlint.rules.base import Rule
from gradlint.trace import Trace

Rates = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class LearningRateSchedule(Rule):
    """A schedule that takes the learning rate away while there is still something to learn.

    ## What it does
    Reads the learning rate at every step, from its peak on. Flags three shapes, in a run of at
    least `min_steps` steps: a rate that is multiplied by the same factor at every step and is
    below `max_fall` of its peak before the first half is over; one that falls in several steps
    to `max_fall` squared in the same time; and one that is zero for more than half of the run.
    A loss that fell to a tenth, or that had stopped falling before the rate was low, is no case.
    A rate below zero is an error.

    ## Why is this bad?
    Schedules are written in epochs or in steps. Stepped once a batch, a factor of 0.7 an epoch
    leaves three hundredths after ten batches: all later ones are computed for nothing.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=20, gamma=0.7)
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
    ```

    ## When it is wrong
    Linear and cosine decay are at half of their peak when half of the run is over, so they are
    silent, like warm-up, one cycle, restarts and a sweep for the best rate. A schedule that
    follows the loss (ReduceLROnPlateau) is not judged, nor is a rate that was set once to
    another level, for a second phase. With several losses the rates of their optimizers
    alternate: such loops are left out.

    ## References
    - PyTorch documentation, "How to adjust learning rate": `scheduler.step()` once an epoch
    - `max_fall` is our choice: decays by a constant factor in published recipes end at about a
      hundredth, and reach it with the last step
    """

    code: ClassVar = "GL412"
    name: ClassVar = "learning-rate-schedule"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("learning_rate",)
    help: ClassVar = "Step the scheduler once an epoch, or give it the number of steps of the run."
    stage: ClassVar = Stage.UPDATE

    max_fall: float = 1e-2
    min_steps: int = 20

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the rate was taken away."""
        loop, rates = trace.facts.loop, _last_sweep(points(trace, "learning_rate"))
        if loop is None or loop.streams > 1 or given(trace) is None or len(rates) < self.min_steps:
            return
        if min(r for _, r in rates) < 0:
            yield self._negative(trace, rates)
            return
        top = max(range(len(rates)), key=lambda i: rates[i][1])
        peak = rates[top][1]
        falling = rates[top:]
        followed = "ReduceLROnPlateau" in loop.schedulers
        if peak <= 0 or followed or any(b > 1.0001 * a for (_, a), (_, b) in pairwise(falling)):
            return
        shape = self._shape(falling, rates[0][0], peak)
        if shape is None or self._learned(trace, falling, peak):
            return
        last, end = rates[-1]
        names = ", ".join(loop.schedulers)
        gone = next(step for step, rate in falling if rate < self.max_fall * peak)
        yield self.finding(
            "",
            f"{shape}: from {peak:.2g} to {end:.2g}, below {self.max_fall:.0%} of its peak from "
            f"step {gone} of {last} on{f' ({names})' if names else ''}{self._loss(trace)}",
            trace=trace,
            evidence={"peak": peak, "last": end, "step": gone, "steps": last, "schedulers": names},
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop: `check` steps no schedule."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)

    def _shape(self, falling: Rates, first: int, peak: float) -> str | None:
        """Say how the rate fell too early; None if it did not."""
        middle = (first + falling[-1][0]) / 2
        by_half = min((rate for step, rate in falling if step <= middle), default=peak)
        zero = sum(rate <= 1e-12 * peak for _, rate in falling)
        factor = _factor(falling)
        if factor is not None and by_half < self.max_fall * peak and factor <= 0.999:
            return f"the learning rate is multiplied by {factor:.3g} at every step"
        levels = len({rate for step, rate in falling if step <= middle})
        if by_half < self.max_fall**2 * peak and levels > 2 and by_half > 0:
            return f"the learning rate falls {levels - 1} times in the first half of the run"
        if zero > 0.5 * len(falling) and by_half <= 1e-12 * peak:
            return f"the learning rate is zero for {zero} of {len(falling)} steps"
        return None

    def _learned(self, trace: Trace, falling: Rates, peak: float) -> bool:
        """Whether the loss had come down, or had stopped falling, before the rate was low."""
        seen = progress(trace)
        if seen is None or seen[0] <= 0:
            return False
        start, late = seen
        low = next(step for step, rate in falling if rate < peak / 3)
        around = [v for step, v in points(trace, "loss") if abs(step - low) <= 2]
        at_low = statistics.median(around) if around else math.inf
        return late <= 0.1 * start or (at_low < 0.8 * start and late > 0.95 * at_low)

    def _loss(self, trace: Trace) -> str:
        seen = progress(trace)
        return f"; the loss went from {seen[0]:.2g} to {seen[1]:.2g}" if seen else ""

    def _negative(self, trace: Trace, rates: Rates) -> Finding:
        step, rate = next((s, r) for s, r in rates if r < 0)
        return self.finding(
            "",
            f"the learning rate is below zero from step {step} of {rates[-1][0]} on ({rate:.2g}): "
            "the optimizer climbs",
            trace=trace,
            severity=Severity.ERROR,
            step=step,
            exact=True,
            evidence={"step": step, "rate": rate, "lowest": min(r for _, r in rates)},
        )


def _factor(falling: Rates) -> float | None:
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


def _last_sweep(rates: Rates) -> Rates:
    """Return the rates after the last sweep: a rise that ends in one drop by more than thirty."""
    start = 0
    for i in range(2, len(rates)):
        rising = rates[i - 1][1] > 1.0001 * rates[i - 2][1]
        if rising and 0 < rates[i][1] < rates[i - 1][1] / 30:
            start = i
    return rates[start:]
