"""Gradients whose size nobody can tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ScaleUnknown(Rule):
    """Gradients that carry a loss scale that is not known.

    ## What it does
    Says so where gradients still carried a loss scale when the optimizer took them, and no
    GradScaler was seen that says how large it was: fused optimizers divide a scale out inside
    their step that somebody wrote into `optimizer.grad_scale`. Ratios of gradients to weights
    are withheld then.

    ## Why is this bad?
    A scaled gradient is tens of thousands of times too large on purpose. Compared with its
    weight it looks like an explosion, and a limit for clipping means something else.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        (1024.0 * F.cross_entropy(model(x), y)).backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    ```

    ## When it is wrong
    Never; it says how far the other rules can see. It is no fault of the model.

    ## References
    - Micikevicius et al. (2018), "Mixed precision training", section 3.2: loss scaling
    """

    code: ClassVar = "GL003"
    name: ClassVar = "scale-unknown"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.WIRING
    help: ClassVar = "Scale the loss with torch.amp.GradScaler, whose scale can be seen."

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched."""
        return NO_LOOP if trace.facts.loop is None else None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the scale of the gradients is not known."""
        loop = trace.facts.loop
        if loop is not None and loop.scale_unknown:
            yield self.finding(
                "",
                "gradients carry an unknown loss scale where the optimizer takes them: their "
                "ratios to weights are withheld",
                trace=trace,
                evidence={"steps": loop.steps},
            )
