"""A recurrent network whose gradient spikes, and nothing clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._series import points, quantile, spikes
from gradlint.rules.base import Rule
from gradlint.trace import Trace

RECURRENT = frozenset({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"})


@dataclass(frozen=True)
class ClippingMissing(Rule):
    """A recurrent network without clipping, whose gradient norm spikes.

    ## What it does
    Looks for a recurrent module (RNN, LSTM, GRU or one of their cells) in a loop that does not
    clip. Flags a loop whose gradient norm rose above `min_factor` times the median of the
    twenty observed steps before, and came back, at `min_spikes` steps or more.

    ## Why is this bad?
    The gradient through time is a product over the steps: the loss has cliffs, and one step off
    a cliff undoes many. Clipping the norm keeps the direction and bounds the step.

    ## Example
    ```python
    model = nn.RNN(4, 32, batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    x = torch.randn(64, 20, 4)
    y = 0.1 * x.mean(dim=2)
    for step in range(60):
        optimizer.zero_grad()
        target = 100 * y if step in (20, 30) else y
        loss = nn.functional.mse_loss(model(x)[0].mean(dim=2), target)
        loss.backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.RNN(4, 32, batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    x = torch.randn(64, 20, 4)
    y = 0.1 * x.mean(dim=2)
    for step in range(60):
        optimizer.zero_grad()
        target = 100 * y if step in (20, 30) else y
        loss = nn.functional.mse_loss(model(x)[0].mean(dim=2), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    ```

    ## When it is wrong
    A spike need not come from the recurrence. Recurrent networks without a spike are well
    without clipping, and silent.

    ## References
    - Reference [0], section 4.4: clip the norm of recurrent networks at 5 to 10
    - Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural networks",
      section 3.2
    """

    code: ClassVar = "GL410"
    name: ClassVar = "clipping-missing"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("total_gradient_norm",)
    help: ClassVar = "Call clip_grad_norm_(model.parameters(), 5.0) before optimizer.step()."
    stage: ClassVar = Stage.UPDATE

    min_factor: float = 10.0
    min_spikes: int = 2

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if a recurrent network's gradient spikes."""
        loop = trace.facts.loop
        cells = [m for m in trace.modules.values() if m.kind in RECURRENT]
        if loop is None or loop.clipping is not None or loop.streams > 1 or not cells:
            return
        norms = points(trace, "total_gradient_norm")
        found = spikes(norms, self.min_factor)
        if loop.scale_unknown or len(found) < self.min_spikes:
            return
        worst = max(found, key=lambda spike: spike.value / spike.usual)
        limit = quantile([v for _, v in norms], 0.95)
        cell = min(cells, key=lambda m: m.depth)
        yield self.finding(
            cell.path,
            f"the gradient's norm spiked at {len(found)} of {len(norms)} observed steps, to "
            f"{worst.value:.2g} where {worst.usual:.2g} is usual, and nothing clips it",
            trace=trace,
            help=f"Call clip_grad_norm_(model.parameters(), {limit:.2g}) before optimizer.step().",
            step=worst.step,
            evidence={
                "spikes": [spike.step for spike in found],
                "norm": worst.value,
                "usual": worst.usual,
                "limit": self.min_factor,
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)
