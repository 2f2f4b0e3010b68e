"""A loss that swings and gets nowhere."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._losses import progress
from gradlint.rules._optimizer import given, maximizes
from gradlint.rules._series import points, usual_update
from gradlint.rules._updates import warming_up
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class LossOscillating(Rule):
    """A loss that rises above its first value again and again, under large updates.

    ## What it does
    Looks at the second half of at least `min_steps` steps. Flags a loss that is above
    `max_swing` times its first value on a tenth of them or more, at or below the first value on
    another tenth, changes sides four times, and in the last quarter did not fall by a quarter,
    while the median weight matrix changes by more than `min_ratio` of its size a step.

    ## Why is this bad?
    Each step jumps over the valley that it should walk into. The batches differ less than that:
    what swings is the model.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 128), nn.Tanh(), nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.4)
    for step in range(80):
        x = torch.randn(16, 16)
        y = x[:, :1] - x[:, 1:2]
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 128), nn.Tanh(), nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(80):
        x = torch.randn(16, 16)
        y = x[:, :1] - x[:, 1:2]
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    ## When it is wrong
    Losses of single samples, of players that play each other and of policies swing by nature:
    without large updates, or with progress, or with several losses, or a sum of several terms,
    or a loss below zero, the rule is silent. A loss that only rises is no swing.

    ## References
    - Reference [3], symptoms of exploding gradients: the loss oscillates
    - `min_ratio` 0.03: thirty times the usual ratio of 1e-3 (CS231n notes); on 30 healthy runs no
      matrix was above 0.1 from step 10 on
    - `max_swing` is our choice
    """

    code: ClassVar = "GL610"
    name: ClassVar = "loss-oscillating"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("loss",)
    help: ClassVar = "Lower the learning rate by a factor of 3 to 10."
    stage: ClassVar = Stage.PROGRESS

    max_swing: float = 1.5
    min_ratio: float = 0.03
    min_steps: int = 20

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the loss swings without progress."""
        loop, seen = trace.facts.loop, progress(trace)
        values = [v for _, v in points(trace, "loss")]
        if loop is None or loop.streams > 1 or seen is None or not _one_term(trace):
            return
        if given(trace) is None or maximizes(trace) or warming_up(trace):
            return
        first, late = seen
        ratio = usual_update(trace, since=11, min_steps=5)
        if len(values) < self.min_steps or first <= 0 or min(values) < 0 or late == math.inf:
            return
        half = values[len(values) // 2 :]
        high = [v > self.max_swing * first for v in half]
        low = [v <= first for v in half]
        sides = [h for h, l in zip(high, low, strict=True) if h or l]  # noqa: E741
        swings = sum(a != b for a, b in pairwise(sides))
        tenth = max(2, len(half) / 10)
        if sum(high) < tenth or sum(low) < tenth or swings < 4 or late < 0.75 * first:
            return
        if not ratio > self.min_ratio:
            return
        yield self.finding(
            "",
            f"the loss swings between {min(half):.2g} and {max(half):.2g} (median "
            f"{statistics.median(half):.2g}) in the second half of {len(values)} steps, and was "
            f"{first:.2g} at first; the median matrix changes by {ratio:.0%} of its size a step",
            trace=trace,
            evidence={
                "first": first,
                "lowest": min(half),
                "highest": max(half),
                "swings": swings,
                "ratio": ratio,
                "limit": self.min_ratio,
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop: some tens of steps are too few to tell."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)


def _one_term(trace: Trace) -> bool:
    """Whether the loss is one known term: the sum of a critic's and a policy's is no measure."""
    kinds = {loss.kind for loss in trace.facts.losses}
    return len(kinds) == 1 and not any(op.in_loss and op.kind == "add" for op in trace.graph)
