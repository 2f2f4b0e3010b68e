"""Weights that double and double again."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._losses import progress
from gradlint.rules._updates import matrices
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class WeightGrowth(Rule):
    """Weight matrices that grow geometrically while the loss does not fall.

    ## What it does
    Counts how often the norm of each weight matrix doubled over a watched loop, given at least
    `min_observations`. Flags those with `min_doublings`, `min_late` of them in the second half
    of the steps, where the median matrix does so and the loss did not fall below `max_rest` of
    its first value.

    ## Why is this bad?
    Activations and gradients grow with the product of the layers' weights. The run ends in
    overflow, or in saturated units that do not learn.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.15 * weight  # decay
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.0005 * weight  # decay
    ```

    ## When it is wrong
    Weights in front of a normalization grow by design, like the root of the steps: they are
    exempt, and so slow a growth is none. Neither is that of weights which started near zero, nor
    any growth under which the loss falls.

    ## References
    - Reference [3], symptoms of exploding gradients: weights that grow without bound
    - van Laarhoven (2017), "L2 regularization versus batch and weight normalization": growth in
      front of a normalization
    - Doublings tell geometric growth from a power of the steps: t^p doubles p times in its
      second half, so 1.5 there is faster than t^1.5. 4 doublings are our choice
    """

    code: ClassVar = "GL504"
    name: ClassVar = "weight-growth"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("weight_norm",)
    stage: ClassVar = Stage.UPDATE
    help: ClassVar = "Lower the learning rate, or add weight decay."

    min_doublings: float = 4.0
    min_late: float = 1.5
    max_rest: float = 0.9
    min_observations: int = 8

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each matrix that doubles on and on."""
        seen = progress(trace)
        if seen is None or seen[1] < self.max_rest * seen[0]:
            return
        counted = {p.path: self._doublings(trace, p.path) for p in matrices(trace)}
        known = {path: pair for path, pair in counted.items() if pair is not None}
        if not known or not self._grows(
            statistics.median(whole for whole, _ in known.values()),
            statistics.median(late for _, late in known.values()),
        ):
            return
        norms = trace.of("weight_norm")
        for path, (whole, late) in known.items():
            if not self._grows(whole, late):
                continue
            here = norms.at(path)
            yield self.finding(
                here.sites[0],
                f"the norm of {path} doubled {whole:.2g} times in {here.steps[-1]} steps, "
                f"{late:.2g} of them in the second half; the loss went from {seen[0]:.2g} to "
                f"{seen[1]:.2g}",
                parameter=path,
                evidence={"doublings": whole, "late": late, "steps": here.steps[-1]},
            )

    def _grows(self, whole: float, late: float) -> bool:
        return whole >= self.min_doublings and late >= self.min_late

    def _doublings(self, trace: Trace, path: str) -> tuple[float, float] | None:
        """Return how often a norm doubled in all and in the second half; None if not known."""
        norms = {
            o.step: o.value
            for o in trace.of("weight_norm").at(path)
            if math.isfinite(o.value) and o.value > 0
        }
        if len(norms) < self.min_observations:
            return None
        first, last = min(norms), max(norms)
        middle = max(step for step in norms if step <= (first + last) / 2)
        return math.log2(norms[last] / norms[first]), math.log2(norms[last] / norms[middle])
