"""Gradients that are noise and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import noise
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class GradientNoise(Rule):
    """Gradients of consecutive steps that have no direction in common, and a loss that stays.

    ## What it does
    Compares each weight's gradients over runs of consecutive steps: the squared norm of what
    they have in common over the variance of the rest. Notes a training in which the median
    over weights and runs of that ratio is below `min_signal`, over at least `min_windows` runs
    from the first half of the training on, and whose loss has not fallen by more than its own
    noise.

    ## Why is this bad?
    A step against such a gradient is a step in a random direction: the weights diffuse
    instead of descending, and a smaller learning rate only makes them diffuse more slowly.
    What helps is to average over more samples.

    ## Example
    ```python
    torch.manual_seed(0)
    model = nn.Linear(32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in range(400):
        x = torch.randn(1, 32)  # one sample, and labels that are noise to 99 %
        y = x[:, :1] + 10 * torch.randn(1, 1)
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    torch.manual_seed(0)
    model = nn.Linear(32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for step in range(400):
        x = torch.randn(512, 32)
        y = x[:, :1] + 10 * torch.randn(512, 1)
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    ```

    ## When it is wrong
    At a minimum every gradient is noise: a training that has come far, or that starts from
    trained weights, is silent. Estimates of a policy's gradient are noise to this degree by
    nature, and still lead somewhere after thousands of steps: it is a note. Gradients that
    alternate (a step too long) are less than noise, and another rule's.

    ## References
    - McCandlish et al. (2018), "An empirical model of large-batch training", section 2.2: a
      step makes s/(1 + s) of the progress of one without noise, s being this ratio; below
      `min_signal` that is one hundredth
    - `min_windows`: the ratio of pure noise over 8 steps scatters by 1/8 · √(2/S) for S
      independent entries; the median of that many is known to less than `min_signal`
    """

    code: ClassVar = "GL307"
    name: ClassVar = "gradient-noise"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("gradient_signal_to_noise",)
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = (
        "Use larger batches, or accumulate gradients over several, and check that the targets "
        "belong to their inputs."
    )

    min_signal: float = 0.01
    min_windows: int = 16

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding, of the whole model."""
        if trace.facts.pretrained:
            return
        ratios = [
            seen
            for seen in trace.of("gradient_signal_to_noise").training
            if not math.isnan(seen.value)
        ]
        steps = trace.of("loss").at("").training.steps
        if len(ratios) < self.min_windows or not steps:
            return
        if ratios[0].step > steps[-1] / 2:
            return  # the training may have come far before anybody looked
        middle = statistics.median(seen.value for seen in ratios)
        if abs(middle) >= self.min_signal or not _stays(trace):
            return
        yield self.finding(
            "",
            "gradients of consecutive steps have nothing in common: signal to noise is "
            f"{max(middle, 0.0):.2g} on the median of {len(ratios)} measurements "
            f"(limit {self.min_signal:g}), and the loss stays",
            trace=trace,
            evidence={
                "signal_to_noise": middle,
                "limit": self.min_signal,
                "measurements": len(ratios),
            },
        )


def _stays(trace: Trace) -> bool:
    """Whether the loss has not fallen by more than its own noise."""
    values = [v for v in trace.of("loss").at("").training.values if math.isfinite(v)]
    if len(values) < 8:
        return False
    quarter = max(4, len(values) // 4)
    before, after = values[:quarter], values[-quarter:]
    fallen = statistics.median(before) - statistics.median(after)
    # The error of a median of as many values, of the difference of two of them.
    error = max(noise(trace) * 1.25 * math.sqrt(2 / quarter), 1e-3 * abs(before[0]))
    return fallen <= 2 * error
