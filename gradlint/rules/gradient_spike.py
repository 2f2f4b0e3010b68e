"""A step whose gradient is far above all before it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._batches import Unlike, jumps, never_back, unlike
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._series import points, spikes
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class GradientSpike(Rule):
    """A total gradient norm that jumps, and comes back.

    ## What it does
    Compares the gradient norm at each observed step, as the optimizer saw it, with the median of
    the twenty before. Flags a step above `min_factor` times that, above six robust deviations
    of its logarithm, and above the first ten steps, after which the norm came back. Names the
    parameter whose gradient rose the most.

    It is an error where the loss never came back, and the batch of that step was unlike those
    before: a layer that is called on the input answered it with more than `min_factor` times its
    largest output before, and by more than its weights' last update allows.

    ## Why is this bad?
    One such step can undo many: plain SGD moves in proportion to it. It comes from a batch unlike
    the others, a division by something small, or a cliff of the loss.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    x = torch.randn(256, 16)
    y = x[:, :1] - x[:, 1:2]
    for step in range(60):
        optimizer.zero_grad()
        target = 100 * y if step == 20 else y
        loss = nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    x = torch.randn(256, 16)
    y = x[:, :1] - x[:, 1:2]
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    ## When it is wrong
    Gradients of single samples, of policies and of nearly fitted models vary by decades; the
    deviation is measured on the run itself, and a spike is to top the first steps. It is a note:
    a run often forgets it. A run that ends where its loss was before, or within `min_factor` times
    that, has forgotten it.

    ## References
    - Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural networks",
      section 2.3: cliffs
    - The limits are our choice
    """

    code: ClassVar = "GL306"
    name: ClassVar = "gradient-spike"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("total_gradient_norm",)
    help: ClassVar = "Look at the batch of that step, and clip the gradient's norm."
    stage: ClassVar = Stage.BACKWARD

    min_factor: float = 10.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for the largest spike."""
        loop = trace.facts.loop
        if loop is None or loop.streams > 1 or loop.scale_unknown:
            return
        odd = self._odd_batch(trace)
        if odd is not None:
            yield odd
            return
        found = spikes(points(trace, "total_gradient_norm"), self.min_factor)
        if not found:
            return
        worst = max(found, key=lambda spike: spike.value / spike.usual)
        parameter = self._parameter(trace, worst.step)
        module = trace.parameters[parameter].module if parameter else ""
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        place = f", most of all in {parameter}" if parameter else ""
        yield self.finding(
            module,
            f"the gradient's norm jumps to {worst.value:.2g} at step {worst.step}, "
            f"{worst.value / worst.usual:.2g} times its usual size (limit {self.min_factor:.2g})"
            f"{place}{more}",
            trace=trace,
            step=worst.step,
            parameter=parameter,
            evidence={
                "norm": worst.value,
                "usual": worst.usual,
                "limit": self.min_factor,
                "steps": [spike.step for spike in found],
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop: some tens of steps have no usual size yet."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)

    def _odd_batch(self, trace: Trace) -> Finding | None:
        """Return the finding for the first jump that a batch unlike the others made for good."""
        for step, norm, usual in jumps(trace, self.min_factor):
            seen = unlike(trace, step, self.min_factor)
            if seen is not None and never_back(trace, step, self.min_factor):
                return self._of_batch(trace, seen, norm, usual)
        return None

    def _of_batch(self, trace: Trace, seen: Unlike, norm: float, usual: float) -> Finding:
        return self.finding(
            seen.module,
            f"the gradient's norm jumps to {norm:.2g} at step {seen.step}, {norm / usual:.2g} "
            f"times its usual size (limit {self.min_factor:.2g}), and the loss never comes back: "
            f"{seen.module or 'the model'} answers the batch of that step with {seen.rise:.2g} "
            f"times its largest output before, and its weights had changed by {seen.moved:.2g} of "
            "themselves",
            trace=trace,
            severity=Severity.ERROR,
            step=seen.step,
            help=_SENTINELS,
            evidence={
                "norm": norm,
                "usual": usual,
                "limit": self.min_factor,
                "of_one_batch": True,
                "rise": seen.rise,
                "moved": seen.moved,
            },
        )

    def _parameter(self, trace: Trace, step: int) -> str | None:
        """Path of the parameter whose gradient is the largest multiple of its usual one.

        One of less than a tenth of the largest is no part of the jump: that of a bias in
        front of a normalization is rounding, and rises by decades.
        """
        rises: dict[str, float] = {}
        series = {path: points(trace, "gradient_norm", path) for path in trace.parameters}
        now = {p: v for p, seen in series.items() if (v := dict(seen).get(step)) is not None}
        for path, value in now.items():
            before = [v for s, v in series[path] if s < step and v > 0]
            if len(before) >= 5 and value >= 0.1 * max(now.values()):
                rises[path] = value / statistics.median(before)
        return max(rises, key=lambda path: rises[path]) if rises else None


_SENTINELS = (
    "Look at the inputs of that batch: replace marks of missing values (-999) and outliers before "
    "they reach the model."
)
