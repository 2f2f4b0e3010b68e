"""Losses that sum over the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import entry, loss_groups
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, Trace


@dataclass(frozen=True)
class SummedLoss(Rule):
    """A loss summed, not averaged, over the batch.

    ## What it does
    Notes a loss with ``reduction="sum"`` that nothing divides afterwards.

    ## Why is this bad?
    The gradient grows with the batch size: twice the batch is twice the learning rate under
    SGD, the last, smaller batch of an epoch counts less, and thresholds for clipping move
    with it.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss(reduction="sum")
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss(reduction="mean")
    ```

    ## When it is wrong
    Sums are the definition of some losses (the evidence lower bound of a variational
    autoencoder), and an optimizer that divides the scale out (Adam) hides the difference. It
    is only a note.

    ## References
    - Goyal et al. (2017), "Accurate, large minibatch SGD", section 2.1
    """

    code: ClassVar = "GL607"
    name: ClassVar = "summed-loss"
    severity: ClassVar = Severity.NOTE
    help: ClassVar = "Use reduction='mean', or divide the sum by the batch size."
    stage: ClassVar = Stage.LOSS

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each summed loss."""
        for group in loss_groups(trace):
            first = group[0]
            if first.reduction == "sum" and not self._divided(trace, first):
                yield self.finding(
                    None,
                    f"{first.kind} is summed over the batch: its gradient scales with the "
                    "batch size",
                    evidence={"loss": first.kind, "batch_size": trace.facts.batch_size},
                )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loss was seen."""
        return None if trace.facts.losses else "no loss with a known reduction was seen"

    def _divided(self, trace: Trace, loss: LossFacts) -> bool:
        op = entry(trace.graph, loss)
        return op is not None and any(
            later.kind in ("div", "scale", "mean") for later in trace.graph.descendants(op)
        )
