"""Regression targets far from the scale of the output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import REGRESSION, loss_groups, place, progress
from gradlint.rules.base import Rule
from gradlint.trace import TensorFacts, Trace


@dataclass(frozen=True)
class UnnormalizedTarget(Rule):
    """Regression targets on another scale than the model's output.

    ## What it does
    Compares the root mean square of the targets of a regression loss with the output's at
    initialization. Flags targets above `largest_scale` and more than `max_ratio` times the
    output, unless the watched steps halved the loss, and targets below `smallest_scale` and
    less than 1/`max_ratio` of the output.

    ## Why is this bad?
    An output of about 0.1 has to travel to 200000 in steps of the learning rate: Adam at 1e-3
    needs millions of steps, SGD gets gradients as large as the targets and diverges. Tiny
    targets make a loss near zero whose gradient says nothing.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, 200000 + 50000 * x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss()
    ```

    ## When it is wrong
    A network whose optimizer reaches the scale in a few steps is well: that is why progress
    silences the rule. Targets of exactly zero (residuals of equations) are not meant.

    ## References
    - LeCun, Bottou, Orr & Müller (1998), "Efficient BackProp", section 4.5
    - The limits are our choice: a ratio of 100 at a scale of 10 is 10000 steps of Adam at 1e-3
    """

    code: ClassVar = "GL615"
    name: ClassVar = "unnormalized-target"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = (
        "Standardize the targets (subtract the mean, divide by the standard deviation) and undo "
        "it on predictions."
    )
    stage: ClassVar = Stage.DATA

    max_ratio: float = 100.0
    largest_scale: float = 10.0
    smallest_scale: float = 1e-3

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each regression loss whose targets are out of scale."""
        seen_progress = progress(trace)
        halved = seen_progress is not None and seen_progress[1] <= 0.5 * seen_progress[0]
        for group in loss_groups(trace):
            first = group[0]
            if first.kind not in REGRESSION or first.target is None or first.output is None:
                continue
            target, output = _scale(first.target), _scale(first.output)
            large = target > max(self.largest_scale, self.max_ratio * output) and not halved
            small = 0 < target < min(self.smallest_scale, output / self.max_ratio)
            if not (large or small):
                continue
            yield self.finding(
                place(trace, first),
                f"the targets' root mean square is {target:.2g}, the output's {output:.2g} at "
                f"initialization (limit a factor of {self.max_ratio:.0f})",
                trace=trace,
                evidence={"target": target, "output": output, "limit": self.max_ratio},
            )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the targets are not the user's, or no regression was seen."""
        if trace.facts.synthesized:
            return "the batch was made up: its targets say nothing"
        if not any(seen.kind in REGRESSION for seen in trace.facts.losses):
            return "no regression loss was seen"
        return None


def _scale(values: TensorFacts) -> float:
    return math.hypot(values.mean, values.std)
