"""Residual streams that outgrow their depth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import Operation
from gradlint.rules._chains import factor, initial_value, trend_of, why_not_initial
from gradlint.rules._residual import normalizes_sums, scales_residual, stacks
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, Trace


@dataclass(frozen=True)
class GrowingResidual(Rule):
    """A stack of residual blocks whose stream grows too fast, or too deep a Post-LN stack.

    ## What it does
    Looks at each stack of at least `min_blocks` blocks of one class in one container, all
    with a residual add. Flags it when, at step 0, the output RMS of the last block exceeds
    that of the first by more than `max_growth`·√blocks and still more than doubles over the
    stack's second half; an error beyond `error_above` in all. Also flags more than
    `max_post_norm` Post-LN blocks (normalization on the sum) when the learning rate does not
    rise at first, a note where gradlint cannot see a schedule, and more than
    `max_unscaled` of them without a scale on the residual path.

    ## Why is this bad?
    Independent branches add variances: a stream of L blocks grows by √L. Branches that read
    an un-normalized stream multiply instead: √2 a block is 3e7 over fifty. A Post-LN stack
    shrinks its identity path at every block, so large first updates make it diverge.

    ## Example
    ```python
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 64)
            nn.init.kaiming_normal_(self.fc.weight)

        def forward(self, x):
            return x + F.relu(self.fc(x))

    blocks = [Block() for _ in range(24)]
    model = nn.Sequential(nn.Linear(16, 64), *blocks, nn.Linear(64, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(64)
            self.fc = nn.Linear(64, 64)
            nn.init.kaiming_normal_(self.fc.weight)

        def forward(self, x):
            return x + F.relu(self.fc(self.norm(x)))

    blocks = [Block() for _ in range(24)]
    model = nn.Sequential(nn.Linear(16, 64), *blocks, nn.LayerNorm(64), nn.Linear(64, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Branches that share a direction (ReLU outputs, all positive) add up linearly, not by
    √blocks: that doubles over the second half and no more, and is silent. A warm-up outside
    the watched steps is not seen. Weights that were loaded are not judged.

    ## References
    - Zhang, Dauphin & Ma (2019), "Fixup initialization"; De & Smith (2020), "Batch
      normalization biases residual blocks towards the identity function": growth by block
    - Xiong et al. (2020), "On layer normalization in the transformer architecture": Post-LN
      needs warm-up; [0] section 4.6: Post-LN below 12 layers, with warm-up
    - Wang et al. (2022), "DeepNet: scaling transformers to 1,000 layers" ([1] DeepNorm)
    - Sums of 100 random independent branches stay within 1.2·√blocks; twice that is our choice.
    """

    code: ClassVar = "GL106"
    name: ClassVar = "growing-residual"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("activation_rms",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Normalize the input of each branch (Pre-LN), or scale the branches by 1/√blocks or by "
        "a parameter that starts at zero (ReZero)."
    )

    max_growth: float = 2.0
    error_above: float = 1e3
    min_blocks: int = 6
    max_post_norm: int = 12
    max_unscaled: int = 48

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each stack of residual blocks."""
        for blocks, adds in stacks(trace):
            if len(blocks) < self.min_blocks:
                continue
            found = self._growth(trace, blocks) or self._post_norm(trace, blocks, adds)
            if found is not None:
                yield found

    def _growth(self, trace: Trace, blocks: Sequence[ModuleFacts]) -> Finding | None:
        values = [initial_value(trace, "activation_rms", block.path) for block in blocks]
        sizes = [v for v in values if v is not None]
        trend = trend_of(sizes, growing=True) if len(sizes) == len(blocks) else None
        limit = self.max_growth * math.sqrt(len(blocks))
        if trend is None or not factor(trend.spared) > limit:
            return None
        overflows = trend.end is not None
        if not overflows and not sizes[-1] > 2 * sizes[len(sizes) // 2 - 1]:
            return None
        severe = overflows or factor(trend.decades) > self.error_above
        return self.finding(
            blocks[0].path,
            f"residual stream's RMS grows from {trend.first:.2g} to {trend.last:.2g} over "
            f"{trend.layers} {blocks[0].kind} blocks{', then overflows' if overflows else ''} "
            f"(limit {limit:.2g} times)",
            trace=trace,
            severity=Severity.ERROR if severe else Severity.WARNING,
            modules=tuple(block.path for block in blocks),
            step=0,
            evidence={
                "growth": factor(trend.decades),
                "limit": limit,
                "blocks": len(blocks),
                "profile": {b.path: v for b, v in zip(blocks, sizes, strict=True)},
            },
        )

    def _post_norm(
        self, trace: Trace, blocks: Sequence[ModuleFacts], adds: Sequence[Sequence[Operation]]
    ) -> Finding | None:
        graph = trace.graph
        deep = len(blocks) > self.max_unscaled
        if len(blocks) <= self.max_post_norm or any(scales_residual(graph, ops) for ops in adds):
            return None
        if not all(normalizes_sums(graph, ops) for ops in adds):
            return None
        rates = [o.value for o in trace.of("learning_rate").training]
        optimizer = trace.facts.optimizer
        if deep:
            what = "have no scale on the residual path"
        elif rates and rates[0] < 0.9 * max(rates):
            return None
        elif trace.facts.command == "check" or optimizer is None or optimizer.probe:
            what = "need a learning rate that warms up"
        else:
            what = "train at a learning rate that does not warm up"
        severity = Severity.NOTE if what.startswith("need") else Severity.WARNING
        limit = self.max_unscaled if deep else self.max_post_norm
        return self.finding(
            blocks[0].path,
            f"{len(blocks)} Post-LN blocks ({blocks[0].kind}) {what} (limit {limit} blocks)",
            trace=trace,
            severity=severity,
            modules=tuple(block.path for block in blocks),
            step=0,
            help="Normalize inside the branch (Pre-LN), warm the learning rate up, or scale the "
            "residual as DeepNorm does.",
            evidence={"blocks": len(blocks), "limit": limit},
        )
