"""Clipping tensor by tensor, or entry by entry, where the global norm is meant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._losses import progress
from gradlint.rules._series import NO_CLIPPING, clippings, points
from gradlint.rules.base import Rule
from gradlint.trace import ClippingFacts, LoopFacts, Trace


@dataclass(frozen=True)
class ClippingPerLayer(Rule):
    """One limit for each tensor by itself, or for each entry.

    ## What it does
    Counts the tensors that a clipping call is given. Flags a loop that clips tensor after
    tensor, at least half of the trainable ones, if more than `max_share` of the steps were
    cut: a note where fewer were. Clipping by value is a note, too, and a warning where it leaves
    less than `min_left` of the gradient's norm on the median step and the loss did not halve.

    ## Why is this bad?
    The global norm shortens the gradient and keeps its direction. A limit for each tensor makes
    them all equally long, and a limit for each entry makes all entries equally large: the step
    no longer goes where the loss falls fastest.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        for parameter in model.parameters():
            nn.utils.clip_grad_norm_(parameter, 0.1)
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    ```

    ## When it is wrong
    Some methods clip each tensor on purpose, with limits of their own for each; value clipping
    at a large limit only guards against accidents, as in much code for LSTMs and for PPO. One
    call for each model or group of parameters is not meant.

    ## References
    - Reference [0], pitfall 5: the same threshold for each layer, or values instead of the norm
    - Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural networks",
      section 3.2
    - `max_share` and `min_left` are our choice
    """

    code: ClassVar = "GL404"
    name: ClassVar = "clipping-per-layer"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = "Call clip_grad_norm_(model.parameters(), …) once, before optimizer.step()."
    stage: ClassVar = Stage.UPDATE

    max_share: float = 0.1
    min_left: float = 0.1

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if clipping is not by the global norm."""
        loop = trace.facts.loop
        if loop is None or loop.clipping is None or loop.clipping.limit == math.inf:
            return
        clipping = loop.clipping
        if clipping.kind == "value":
            yield self._by_value(trace, clipping, _left(trace, loop))
        elif clipping.kind == "norm" and clipping.tensors == 1:
            yield from self._by_tensor(trace, clipping)

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop, or nothing was clipped in it."""
        if trace.facts.loop is None:
            return NO_LOOP
        return NO_CLIPPING if trace.facts.loop.clipping is None else super().skip_reason(trace)

    def _by_tensor(self, trace: Trace, clipping: ClippingFacts) -> Iterator[Finding]:
        trainable = sum(p.requires_grad for p in trace.parameters.values())
        if trainable <= 2 or clipping.calls_per_step < max(3, trainable / 2):
            return
        clipped = clippings(trace)
        share = sum(n > m for _, n, m in clipped) / len(clipped) if clipped else 0.0
        yield self.finding(
            "",
            f"each of {clipping.calls_per_step:.0f} tensors is clipped by itself, at the same "
            f"limit of {clipping.limit:.2g}, and {share:.0%} of {clipping.steps} steps were cut",
            trace=trace,
            severity=Severity.WARNING if share > self.max_share else Severity.NOTE,
            evidence={
                "kind": clipping.kind,
                "limit": clipping.limit,
                "calls_per_step": clipping.calls_per_step,
                "share": share,
            },
        )

    def _by_value(self, trace: Trace, clipping: ClippingFacts, left: float) -> Finding:
        seen = progress(trace)
        learns = seen is not None and seen[1] <= 0.5 * seen[0]
        hard = left < self.min_left and not learns
        shown = "" if math.isnan(left) else f", which leaves {left:.0%} of their norm"
        return self.finding(
            "",
            f"gradients are clipped entry by entry at ±{clipping.limit:.2g}{shown}",
            trace=trace,
            severity=Severity.WARNING if hard else Severity.NOTE,
            evidence={
                "kind": clipping.kind,
                "limit": clipping.limit,
                "left": None if math.isnan(left) else left,
            },
        )


def _left(trace: Trace, loop: LoopFacts) -> float:
    """Median share of the norm after backward that reached the optimizer; NaN if unknown."""
    if loop.scaler is not None or loop.scale_unknown:
        return math.nan
    before = dict(points(trace, "backward_gradient_norm"))
    after = points(trace, "total_gradient_norm")
    shares = [norm / before[step] for step, norm in after if before.get(step, 0) > 0]
    return statistics.median(shares) if len(shares) >= 5 else math.nan
