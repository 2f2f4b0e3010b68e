"""A learning rate that is gone long before the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP, of_stream
from gradlint.rules._schedules import Rates, Stream, constant_factor, rate_streams
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class LearningRateSchedule(Rule):
    """A schedule that takes the learning rate away while there is still something to learn.

    ## What it does
    Reads the learning rate at every step, from its peak on. Flags three shapes, in a run of at
    least `min_steps` steps: a rate that is multiplied by the same factor at every step and is
    below `max_fall` of its peak before the first half is over; one that falls in several steps
    to `max_fall` squared in the same time; and one that is zero for more than half of the run.
    A loss that fell to a tenth, or that had stopped falling before the rate was low, is no case.
    Flags, too, a CosineAnnealingLR whose rate changes at every step and has come back up from its
    minimum `min_returns` times or more, and a rate that is zero for the first `min_idle` steps
    and a twentieth of the run. A rate below zero is an error.

    ## Why is this bad?
    Schedules are written in epochs or in steps. Stepped once a batch, a factor of 0.7 an epoch
    leaves three hundredths after ten batches: all later ones are computed for nothing. A cosine
    meant for ten epochs goes down and up every twenty batches, and the run ends anywhere on it.

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
    silent, like warm-up, one cycle, restarts and a sweep for the best rate; CyclicLR and
    CosineAnnealingWarmRestarts go up and down by design. A schedule that
    follows the loss (ReduceLROnPlateau) is not judged, nor is a rate that was set once to
    another level, for a second phase.

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
    min_returns: int = 3
    min_idle: int = 10
    min_steps: int = 20

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each optimizer whose rate was taken away."""
        schedulers = trace.facts.loop.schedulers if trace.facts.loop is not None else ()
        for stream in rate_streams(trace):
            if len(stream.rates) >= self.min_steps:
                yield from self._of(trace, stream, schedulers)

    def _of(self, trace: Trace, stream: Stream, schedulers: tuple[str, ...]) -> Iterator[Finding]:
        rates = stream.rates
        module, whose = of_stream(trace, stream.name)
        if min(r for _, r in rates) < 0:
            yield self._negative(trace, stream)
            return
        top = max(range(len(rates)), key=lambda i: rates[i][1])
        peak = rates[top][1]
        falling = rates[top:]
        yield from self._cycling(trace, stream, schedulers)
        yield from self._late(trace, stream, schedulers)
        followed = "ReduceLROnPlateau" in schedulers
        if peak <= 0 or followed or any(b > 1.0001 * a for (_, a), (_, b) in pairwise(falling)):
            return
        shape = self._shape(falling, rates[0][0], peak)
        # A loss that stops where the rate is zero stops for that reason.
        gone_for_good = shape is not None and shape.startswith("is zero")
        if shape is None or stream.learned(falling, peak, stopped=not gone_for_good):
            return
        last, end = rates[-1]
        names = ", ".join(schedulers)
        gone = next(step for step, rate in falling if rate < self.max_fall * peak)
        yield self.finding(
            module,
            f"the learning rate{whose} {shape}: from {peak:.2g} to {end:.2g}, below "
            f"{self.max_fall:.0%} of its peak from step {gone} of {last} on"
            f"{f' ({names})' if names else ''}{stream.outcome}",
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
        factor = constant_factor(falling)
        if factor is not None and by_half < self.max_fall * peak and factor <= 0.999:
            return f"is multiplied by {factor:.3g} at every step"
        levels = len({rate for step, rate in falling if step <= middle})
        if by_half < self.max_fall**2 * peak and levels > 2 and by_half > 0:
            return f"falls {levels - 1} times in the first half of the run"
        if zero > 0.5 * len(falling) and by_half <= 1e-12 * peak:
            return f"is zero for {zero} of {len(falling)} steps"
        return None

    def _late(self, trace: Trace, stream: Stream, schedulers: tuple[str, ...]) -> Iterator[Finding]:
        """Yield one finding if the rate was zero for a while before it was anything else."""
        rates = stream.rates
        idle = next((i for i, (_, rate) in enumerate(rates) if rate != 0), len(rates))
        if idle == len(rates) or idle < self.min_idle or idle < 0.05 * len(rates):
            return
        module, whose = of_stream(trace, stream.name)
        peak = max(rate for _, rate in rates)
        names = f" ({', '.join(schedulers)})" if schedulers else ""
        yield self.finding(
            module,
            f"the learning rate{whose} is zero for the first {idle} of {len(rates)} steps, and "
            f"{peak:.2g} at its highest{names}",
            trace=trace,
            help="Step the scheduler once a batch, or start its warm-up above zero.",
            evidence={"idle": idle, "steps": len(rates), "peak": peak},
        )

    def _cycling(
        self, trace: Trace, stream: Stream, schedulers: tuple[str, ...]
    ) -> Iterator[Finding]:
        """Yield one finding if a cosine that was meant to fall once goes down and up."""
        rates = stream.rates
        module, whose = of_stream(trace, stream.name)
        values = [rate for _, rate in rates]
        low, high = min(values), max(values)
        if schedulers != ("CosineAnnealingLR",) or low >= 0.5 * high:
            return
        share = [(step, (rate - low) / (high - low)) for step, rate in rates]
        clear = [(step, x) for step, x in share if not 0.25 < x < 0.75]
        up = [step for (_, a), (step, b) in pairwise(clear) if b > 0.5 > a]
        moving = sum(a != b for a, b in pairwise(values))
        if len(up) < self.min_returns or moving < 0.9 * (len(values) - 1):
            return
        period = (up[-1] - up[0]) / max(1, len(up) - 1)
        yield self.finding(
            module,
            f"the learning rate{whose} falls from {high:.2g} to {low:.2g} and comes back {len(up)} "
            f"times in {rates[-1][0]} steps, about every {period:.2g} (CosineAnnealingLR)",
            trace=trace,
            evidence={"peak": high, "lowest": low, "returns": len(up), "period": period},
        )

    def _negative(self, trace: Trace, stream: Stream) -> Finding:
        rates = stream.rates
        module, whose = of_stream(trace, stream.name)
        step, rate = next((s, r) for s, r in rates if r < 0)
        return self.finding(
            module,
            f"the learning rate{whose} is below zero from step {step} of {rates[-1][0]} on "
            f"({rate:.2g}): the optimizer climbs",
            trace=trace,
            severity=Severity.ERROR,
            step=step,
            exact=True,
            evidence={"step": step, "rate": rate, "lowest": min(r for _, r in rates)},
        )
