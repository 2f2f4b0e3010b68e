"""A few units a thousand times larger than the rest of their layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ActivationOutliers(Rule):
    """Layers in which a few units are a thousand times larger than all others.

    ## What it does
    After the watched training, measures the root mean square of every unit of weight layers
    and normalizations over a batch. Notes layers in which the largest is more than `max_ratio`
    times the median, and no more than `max_share` of the units are of its size. The last
    layer is left out.

    ## Why is this bad?
    The few decide norms and attention scores alone, and a 16-bit or quantized format that is
    scaled to hold them has no bits left for the others.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 4))
    with torch.no_grad():
        model[0].weight[3].mul_(1e4)
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Large language models grow such units and work: they act as constants. Weights that were
    loaded are not judged, nor made-up batches.

    ## References
    - Sun et al. (2024), "Massive activations in large language models", section 2.1: a
      thousand times the median is their `max_ratio`, too
    - Dettmers et al. (2022), "LLM.int8()", section 4: outliers are in less than 1 % of the
      features; `max_share` is our choice
    """

    code: ClassVar = "GL207"
    name: ClassVar = "activation-outliers"
    severity: ClassVar = Severity.NOTE
    stage: ClassVar = Stage.FORWARD
    help: ClassVar = (
        "Look at the weights and inputs of these units; a normalization in front, weight decay "
        "or a smaller learning rate keeps them near the others."
    )

    max_ratio: float = 1e3
    max_share: float = 0.1

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where units were not compared, or prove nothing."""
        if "unit-sizes" not in trace.facts.probes:
            return "units were not compared after training"
        if trace.facts.pretrained:
            return "weights were loaded: large units are what they learned"
        return "the batch was made up" if trace.facts.synthesized else None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each layer with outliers."""
        for path, seen in trace.facts.probes.get("unit-sizes", {}).items():
            ratio, large, units = float(seen["ratio"]), int(seen["large"]), int(seen["units"])
            if not ratio > self.max_ratio or large > self.max_share * units:
                continue
            yield self.finding(
                path,
                f"{large} of {units} units reach {seen['largest']:.2g}, {ratio:.2g} times the "
                f"median unit (limit {self.max_ratio:g})",
                trace=trace,
                evidence={"ratio": ratio, "limit": self.max_ratio, "large": large, "units": units},
            )
