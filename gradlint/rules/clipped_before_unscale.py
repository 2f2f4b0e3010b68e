"""Clipping that sees the loss scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._series import NO_CLIPPING, NO_SCALER
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ClippedBeforeUnscale(Rule):
    """Gradients clipped while they still carry a GradScaler's scale.

    ## What it does
    Counts the clipping calls that came between `scaler.scale(loss).backward()` and
    `scaler.unscale_(optimizer)`, or without the latter. One is enough.

    ## Why is this bad?
    The scale starts at 65536. A limit of 1 then cuts every gradient, at 1/65536 of what was
    meant, and the limit changes whenever the scale does.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    x = torch.randn(256, 16)
    y = x[:, :5].argmax(dim=1)
    for step in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    ```

    ## When it is wrong
    A limit that is infinite only measures, and a limit that was multiplied by the scale (it is
    above a tenth of it) is meant so: both are left out, and a scale of 1.

    ## References
    - PyTorch documentation, "Automatic mixed precision examples": gradient clipping
    - Reference [0], pitfall 5
    """

    code: ClassVar = "GL405"
    name: ClassVar = "clipped-before-unscale"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Call scaler.unscale_(optimizer) after backward(), before clipping."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if scaled gradients were clipped."""
        loop = trace.facts.loop
        if loop is None or loop.clipping is None or loop.scaler is None:
            return
        clipping, scaler = loop.clipping, loop.scaler
        scale = max(scaler.first_scale, scaler.last_scale)
        scaled_limit = scaler.last_scale > 16 and clipping.limit >= 0.1 * scaler.last_scale
        if not clipping.scaled or scale == 1 or clipping.limit == math.inf or scaled_limit:
            return
        cut = "" if math.isnan(clipping.limit) else f", so a limit of {clipping.limit:.2g} cuts at "
        if cut:
            cut += f"{clipping.limit / scale:.2g}"
        yield self.finding(
            "",
            f"{clipping.scaled} of {clipping.calls} clipping calls saw gradients that are "
            f"{scale:.0f} times too large (the GradScaler's scale){cut}",
            trace=trace,
            evidence={
                "scaled": clipping.scaled,
                "calls": clipping.calls,
                "scale": scale,
                "limit": None if math.isnan(clipping.limit) else clipping.limit,
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop, no scaler, or nothing was clipped."""
        if trace.facts.loop is None:
            return NO_LOOP
        if trace.facts.loop.scaler is None:
            return NO_SCALER
        return NO_CLIPPING if trace.facts.loop.clipping is None else super().skip_reason(trace)
