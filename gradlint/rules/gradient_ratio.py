"""Gradients out of proportion to their weights."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._scale_free import divides_scale_out
from gradlint.rules.base import Rule
from gradlint.trace import Site, Trace


@dataclass(frozen=True)
class GradientRatio(Rule):
    """A parameter whose gradient is tiny or huge against it, while others are in proportion.

    ## What it does
    Under an optimizer that keeps the gradient's scale (SGD), takes the ratio of gradient norm
    to weight norm of every parameter over the training steps. Notes a weight matrix that is
    more than `margin` times outside the documented band of `low` to `high` on at least 90 % of
    at least `min_steps` steps, and a vector (bias, scale) that far below it, if at least half of
    the other matrices are inside the band. It is a warning for a matrix whose true update is
    out of proportion with it: less than `min_update` of the weight a step, or more than
    `max_update`.

    ## Why is this bad?
    One learning rate serves all parameters: where most are in proportion, this one stands
    still, or jumps.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(16, 64)
            self.side = nn.Linear(16, 64)
            self.head = nn.Linear(64, 4)

        def forward(self, x):
            return self.head(F.relu(self.hidden(x)) + 1e-6 * self.side(x))

    model = Net()
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(16, 64)
            self.side = nn.Linear(16, 64)
            self.head = nn.Linear(64, 4)

        def forward(self, x):
            return self.head(F.relu(self.hidden(x)) + self.side(x))

    model = Net()
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    ## When it is wrong
    Adam and its kin divide the scale out (GL401 and GL402 look at the true update), so the rule
    is silent there, and where no optimizer was given. Biases in front of a normalization and
    biases of attention keys have a gradient that cancels; layer scales and zero-initialized
    branches start small: those are explained as exemptions. The ratio of a weight in front of
    a normalization depends on its own scale, which does not matter.

    ## References
    - [0] section 4.4.4: the healthy band is 1e-3 to 1e-1
    - `margin`: on 255 healthy models at their authors' initialization 56 % of the tensors were
      outside the band, 4 % outside 1e-5 to 10. `min_update` and `max_update` are our choice: at
      1e-7 a step, a hundred thousand steps change a weight by 1 %.
    """

    code: ClassVar = "GL303"
    name: ClassVar = "gradient-ratio"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("gradient_ratio", "update_to_weight_ratio")
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = (
        "Rescale the layer or its input, give it a learning rate of its own, or use an optimizer "
        "that divides the gradient's scale out (Adam)."
    )

    low: float = 1e-3
    high: float = 1e-1
    margin: float = 100.0
    min_steps: int = 10
    min_update: float = 1e-7
    max_update: float = 1e-1

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why the rule cannot speak about `trace`, or None if it can."""
        optimizer = trace.facts.optimizer
        if optimizer is None or optimizer.probe:
            return "no optimizer was given"
        if divides_scale_out(optimizer):
            return f"{optimizer.kind} divides the gradient's scale out: see GL401 and GL402"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each parameter far outside the band."""
        ratios = trace.of("gradient_ratio").training
        seen: dict[Site, list[float]] = {}
        for site in ratios.sites:
            values = [v for v in ratios.at(site).values if math.isfinite(v)]
            if len(values) >= self.min_steps:
                seen[site] = values
        medians = {s: statistics.median(v) for s, v in seen.items()}
        matrices = {s for s in seen if _is_matrix(trace, s)}
        inside = {s for s in matrices if self.low <= medians[s] <= self.high}
        for site, values in seen.items():
            matrix = site in matrices
            others = len(matrices - {site})
            if not others or 2 * len(inside - {site}) < others:
                continue
            far_below = self.low / self.margin
            far_above = self.high * self.margin if matrix else math.inf
            below = sum(v < far_below for v in values)
            above = sum(v > far_above for v in values)
            if max(below, above) < 0.9 * len(values):
                continue
            yield self._finding(trace, site, medians[site], matrix, len(inside - {site}), others)

    def _finding(
        self, trace: Trace, site: Site, ratio: float, matrix: bool, inside: int, others: int
    ) -> Finding:
        update = trace.of("update_to_weight_ratio").training.at(site).median
        stands = ratio < self.low and update < self.min_update
        jumps = ratio > self.high and update > self.max_update
        moved = "" if math.isnan(update) else f", the update is {update:.1e} of the weight a step"
        return self.finding(
            site,
            f"gradient is {ratio:.1e} of {site.path} (band {self.low:.0e} to {self.high:.0e}), "
            f"{inside} of {others} other weights are inside{moved}",
            parameter=site.path,
            severity=Severity.WARNING if matrix and (stands or jumps) else Severity.NOTE,
            evidence={
                "gradient_ratio": ratio,
                "limit": [self.low / self.margin, self.high * self.margin],
                "update_to_weight_ratio": None if math.isnan(update) else update,
                "inside": inside,
                "others": others,
            },
        )


def _is_matrix(trace: Trace, site: Site) -> bool:
    facts = trace.parameters.get(site.path)
    return facts is not None and len(facts.shape) >= 2
