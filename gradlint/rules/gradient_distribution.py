"""Gradients that are far from bell-shaped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Site, Trace


@dataclass(frozen=True)
class GradientDistribution(Rule):
    """A weight gradient with a mass of exact zeros, or with extreme tails.

    ## What it does
    Notes a weight matrix of which, on the median training step, more than `max_zero_share` of
    the gradient's entries are exactly zero (all of them zero is left to other rules), or whose
    gradient has a kurtosis above `max_kurtosis` with entries beyond six standard deviations.
    At least `min_steps` steps are needed. The first layer is not judged: zeros in the
    data are zeros in its gradient.

    ## Why is this bad?
    Entries without gradient do not learn. A gradient made of a few entries is a step in a few
    directions, and one batch decides which.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    nn.init.constant_(model[2].bias[:62], -10.0)
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Embedding rows that no batch holds and parts of a model that a batch does not use have no
    gradient: those are explained as exemptions. Mixtures of experts and sparse attention are
    like it. A note never changes the verdict.

    ## References
    - [0] section 4.4.4: the histogram should be bell-shaped, without many zeros or extremes
    - Both limits are our choice: over 110 small networks, embeddings aside, the largest share
      of zeros was 0.86 and the largest kurtosis 138 (3 is a normal distribution's).
    """

    code: ClassVar = "GL304"
    name: ClassVar = "gradient-distribution"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("gradient_zero_share", "gradient_kurtosis", "gradient_tail_share")
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = (
        "Look for dead units and unused inputs where entries are zero, for outliers in the batch "
        "where the tails are heavy; clip the total gradient norm against the latter."
    )

    max_zero_share: float = 0.9
    max_kurtosis: float = 1000.0
    min_steps: int = 10

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each weight matrix."""
        zeros = trace.of("gradient_zero_share").training
        kurtosis = trace.of("gradient_kurtosis").training
        tails = trace.of("gradient_tail_share").training
        for site in dict.fromkeys((*zeros.sites, *kurtosis.sites)):
            if not _is_judged(trace, site):
                continue
            zero, peak, tail = zeros.at(site), kurtosis.at(site), tails.at(site)
            if len(zero) >= self.min_steps and self.max_zero_share < zero.median < 1:
                yield self.finding(
                    site,
                    f"{zero.median:.0%} of the gradient of {site.path} is exactly zero on the "
                    f"median of {len(zero)} steps (limit {self.max_zero_share:.0%})",
                    parameter=site.path,
                    evidence={"zero_share": zero.median, "limit": self.max_zero_share},
                )
            elif (
                len(peak) >= self.min_steps
                and all(math.isfinite(v) for v in peak.values)
                and peak.median > self.max_kurtosis
                and tail.median > 0
            ):
                yield self.finding(
                    site,
                    f"gradient of {site.path} has kurtosis {peak.median:.2g} on the median of "
                    f"{len(peak)} steps (limit {self.max_kurtosis:.2g}, a bell curve has 3), "
                    f"{tail.median:.2%} of it beyond six standard deviations",
                    parameter=site.path,
                    evidence={
                        "kurtosis": peak.median,
                        "tail_share": tail.median,
                        "limit": self.max_kurtosis,
                    },
                )


def _is_judged(trace: Trace, site: Site) -> bool:
    """Whether `site` is a weight matrix behind some other operation of the model."""
    facts = trace.parameters.get(site.path)
    if facts is None or len(facts.shape) < 2:
        return False
    readers = trace.graph.reading(site.path)
    return not readers or any(op.inputs or op.kind == "embedding" for op in readers)
