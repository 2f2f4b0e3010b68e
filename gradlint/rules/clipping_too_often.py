"""A clipping limit below the usual gradient."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._losses import progress
from gradlint.rules._optimizer import given, rescales
from gradlint.rules._series import NO_CLIPPING, clippings, quantile, usual_update
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ClippingTooOften(Rule):
    """Clipping that cuts most steps' gradients, not only the spikes.

    ## What it does
    Compares the norm before clipping with the limit, at every step that clipped. A note where
    more than `max_share` of at least `min_steps` steps were cut. A warning where the norm is
    above `max_excess` times the limit on nine steps of ten, the optimizer does not divide the
    gradient's scale out, and nothing much happens: the median matrix changes by less than
    `min_ratio` of its size a step and the loss did not halve, or by less than `low_ratio`
    and the loss kept four fifths of its first value.

    ## Why is this bad?
    A gradient that is always cut has a fixed length: plain SGD then moves by learning rate ×
    limit a step, however far it has to go, and a limit a thousand times too small divides the
    learning rate by a thousand.

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
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
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
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    ```

    ## When it is wrong
    Word language models clip every step at 0.25 by design, with a learning rate to match, and
    losses that are sums are cut hard: both learn, and are no more than a note. Adam and its kin
    divide the scale out, so for them it is a note, too, and for loaded weights, whose updates
    are small on purpose.

    ## References
    - Reference [0], pitfall 5: a threshold too small slows training down
    - Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural networks",
      section 3.2: a limit taken from the norm's usual size
    - `max_excess`, `min_ratio` and `low_ratio` are our choice: about 1e-3 is a usual ratio, and
      a hundredfold cut is a learning rate a hundred times lower
    """

    code: ClassVar = "GL403"
    name: ClassVar = "clipping-too-often"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("norm_before_clipping",)
    help: ClassVar = "Raise the limit to where it cuts one step in twenty."
    stage: ClassVar = Stage.UPDATE

    max_share: float = 0.5
    max_excess: float = 100.0
    min_ratio: float = 1e-5
    low_ratio: float = 3e-4
    min_steps: int = 20

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if most steps were clipped."""
        clipped = clippings(trace)
        if len(clipped) < self.min_steps:
            return
        share = sum(norm > limit for _, norm, limit in clipped) / len(clipped)
        if share <= self.max_share:
            return
        norms = [norm for _, norm, _ in clipped]
        limit = statistics.median(limit for _, _, limit in clipped)
        below = {f"{q:.0%}": quantile(norms, q) for q in (0.05, 0.5, 0.95)}
        ratio = usual_update(trace)
        choked = self._choked(trace, clipped, ratio)
        yield self.finding(
            "",
            f"{share:.0%} of {len(clipped)} steps were clipped: the norm is {below['50%']:.2g} on "
            f"the median step, the limit {limit:.2g}{self._outcome(trace, ratio, choked=choked)}",
            trace=trace,
            severity=Severity.WARNING if choked else Severity.NOTE,
            help=f"Set the limit to about {below['95%']:.2g}: it then cuts one step in twenty.",
            evidence={
                "share": share,
                "limit": limit,
                "norm_quantiles": below,
                "ratio": None if math.isnan(ratio) else ratio,
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop, or nothing was clipped in it."""
        if trace.facts.loop is None:
            return NO_LOOP
        if trace.facts.loop.clipping is None:
            return NO_CLIPPING
        return super().skip_reason(trace)

    def _choked(self, trace: Trace, clipped: list[tuple[int, float, float]], ratio: float) -> bool:
        """Whether clipping is what keeps the weights where they are."""
        hard = sum(norm > self.max_excess * limit for _, norm, limit in clipped)
        if hard < 0.9 * len(clipped) or given(trace) is None or rescales(trace):
            return False
        if trace.facts.pretrained:
            return False
        seen = progress(trace)
        if seen is None or seen[0] <= 0:
            return ratio < self.min_ratio
        kept = seen[1] / seen[0]
        return (ratio < self.min_ratio and kept > 0.5) or (ratio < self.low_ratio and kept > 0.8)

    def _outcome(self, trace: Trace, ratio: float, *, choked: bool) -> str:
        seen = progress(trace)
        if choked:
            loss = f", the loss went from {seen[0]:.3g} to {seen[1]:.3g}" if seen else ""
            return f"; the median matrix changes by {ratio:.2g} of its size a step{loss}"
        optimizer = given(trace)
        if optimizer is not None and rescales(trace):
            return f"; {optimizer.kind} divides the scale out"
        return ""
