"""BatchNorm whose statistics come from too few values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, Trace

_RAISED = "Expected more than 1 value per channel"


@dataclass(frozen=True)
class SmallBatchBatchnorm(Rule):
    """BatchNorm in training mode with few values per channel.

    ## What it does
    Counts the values that each channel's mean and variance are estimated from (samples times
    positions): a note below `note_values`, a warning below `min_values` or if all of them are
    of one sample, an error at 1, where torch raises.

    ## Why is this bad?
    The estimate's relative error is about √(2 / n): with 8 values the variance is off by half
    from batch to batch, every sample's output depends on its neighbors, and the running
    statistics used in evaluation differ from those the weights were trained with.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)
    )
    batch = (torch.randn(4, 8), torch.randint(0, 3, (4,)))
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(8, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 3)
    )
    batch = (torch.randn(4, 8), torch.randint(0, 3, (4,)))
    ```

    ## When it is wrong
    Layers in eval mode use running statistics, SyncBatchNorm counts the values of all ranks:
    neither is meant. Nothing is said of a batch size that gradlint chose itself. Batches of 16
    train well in many published recipes, hence only a note from `min_values` on.

    ## References
    - Reference [0], "Common pitfalls", 4: no BatchNorm below a batch of 32 (`note_values`)
    - Wu & He (2018), "Group normalization", figure 1: the error of a ResNet-50 at 32 and 16
      images a worker is one, it rises from 8 on (`min_values`; images there, values here: our
      choice for layers without positions). A single sample's mean is taken out of all that
      is known of it: 11 positions of one left a classifier at chance in evaluation
    """

    code: ClassVar = "GL801"
    name: ClassVar = "small-batch-batchnorm"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = (
        "Use a larger batch, GroupNorm or LayerNorm; under data parallelism SyncBatchNorm."
    )
    stage: ClassVar = Stage.FORWARD

    note_values: int = 32
    min_values: int = 8

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each BatchNorm with too few values."""
        for event in trace.events("exception"):
            if _RAISED in str(event.detail.get("message", "")):
                yield self._finding(trace, event.module, 1, 1)
                return
        for module in trace.modules.values():
            count = _values(module)
            if count is not None and count < max(self.note_values, self.min_values):
                yield self._finding(trace, module.path, count, (module.input_shape or (1,))[0])

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the batch size is not the user's."""
        return "the batch was made up, its size too" if trace.facts.synthesized else None

    def _finding(self, trace: Trace, module: str | None, count: int, samples: int) -> Finding:
        noun = "value" if count == 1 else "values"
        few = count < self.min_values or samples == 1
        limit = self.min_values if count < self.min_values else self.note_values
        source = ", all of one sample" if samples == 1 and count > 1 else ""
        severity = Severity.WARNING if few else Severity.NOTE
        return self.finding(
            module,
            f"BatchNorm estimates its statistics from {count} {noun} a channel"
            f"{source} (limit {limit})",
            trace=trace,
            severity=Severity.ERROR if count <= 1 else severity,
            exact=count <= 1,
            evidence={"values": count, "limit": limit},
        )


def _values(module: ModuleFacts) -> int | None:
    """Values per channel of a BatchNorm that estimates statistics; None for anything else."""
    shape = module.input_shape
    if not module.kind.startswith("BatchNorm") or not module.training or not shape:
        return None
    return prod(shape) // shape[1] if len(shape) > 1 and shape[1] else None
