"""Steps that a GradScaler leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._series import NO_SCALER
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class SkippedSteps(Rule):
    """A GradScaler that skips more steps than its search for the scale explains.

    ## What it does
    Counts the optimizer steps that a GradScaler skipped in the second half of a run of at least
    `min_steps`. Flags a run in which `min_skipped` or more, and more than `max_share` of them,
    were skipped; it is an error where nine of ten were.

    ## Why is this bad?
    A step is skipped when a gradient is not finite. A scale that is too large is halved until
    it fits, within some twenty steps. What is skipped afterwards overflows at any scale: the
    batch is lost, and the cause is in the model or in the data.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss = loss / (step % 3)  # a division by zero at every third step
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    ```

    ## When it is wrong
    The scaler doubles its scale after 2000 good steps by default and may skip the next one; an
    interval of ten or more stays below the limit. Short runs are still searching, and are not
    judged.

    ## References
    - Micikevicius et al. (2018), "Mixed precision training", section 3.2: loss scaling
    - PyTorch documentation, `torch.amp.GradScaler`: `growth_interval`
    - The limits are our choice
    """

    code: ClassVar = "GL409"
    name: ClassVar = "skipped-steps"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = (
        "Find what overflows (gradlint names the first non-finite place): normalize inputs, lower "
        "the learning rate, compute the loss in float32, or use bfloat16."
    )
    stage: ClassVar = Stage.UPDATE

    max_share: float = 0.1
    min_skipped: int = 3
    min_steps: int = 40

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the second half of the run skipped too many steps."""
        scaler = trace.facts.loop.scaler if trace.facts.loop is not None else None
        if scaler is None or scaler.steps < self.min_steps:
            return
        late = scaler.steps - scaler.steps // 2
        share = scaler.skipped_late / late
        if scaler.skipped_late < self.min_skipped or share <= self.max_share:
            return
        yield self.finding(
            "",
            f"the GradScaler skipped {scaler.skipped_late} of the last {late} steps (limit "
            f"{self.max_share:.0%}); its scale went from {scaler.first_scale:.2g} to "
            f"{scaler.last_scale:.2g}",
            trace=trace,
            severity=Severity.ERROR if share >= 0.9 else Severity.WARNING,
            evidence={
                "skipped": scaler.skipped,
                "steps": scaler.steps,
                "share": share,
                "limit": self.max_share,
                "scale": [scaler.first_scale, scaler.last_scale],
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop, or no scaler in it."""
        if trace.facts.loop is None:
            return NO_LOOP
        return NO_SCALER if trace.facts.loop.scaler is None else super().skip_reason(trace)
