"""Custom functions whose backward contradicts their forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class GradientCheckFailed(Rule):
    """A custom autograd.Function that passes a gradient where it is flat, and none where it slopes.

    ## What it does
    Compares, for each `autograd.Function` of your own that acts on a tensor entry by entry, the
    slope that backward claims with central differences of forward, in float64, on what the
    model gives it. Flags a function whose backward has nothing, or the other sign, at more than
    `max_against` of the `min_entries` or more entries at which forward rises or falls, and
    passes something at as many at which forward is flat.

    ## Why is this bad?
    Everything in front of the function is pushed by the wrong samples. The layers behind it
    learn all the same, so that the loss falls, to a worse end.

    ## Example
    ```python
    class Clamp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (x.abs() > 1)

    class HardTanh(nn.Module):
        def forward(self, x):
            return Clamp.apply(x)

    model = nn.Sequential(nn.Linear(8, 32), HardTanh(), nn.Linear(32, 3))
    nn.init.normal_(model[0].weight, std=0.4)
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Clamp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (x.abs() <= 1)

    class HardTanh(nn.Module):
        def forward(self, x):
            return Clamp.apply(x)

    model = nn.Sequential(nn.Linear(8, 32), HardTanh(), nn.Linear(32, 3))
    nn.init.normal_(model[0].weight, std=0.4)
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Backward is another function on purpose in straight-through estimators, surrogates of
    spikes, gradient reversal, scaling, clipping and stopping: functions that are steps or
    straight lines, a backward that agrees where forward slopes whatever it passes elsewhere,
    one that passes nothing at all, and one of the opposite sign throughout are silent. A wrong
    factor is not found, nor is a function of several tensors.

    ## References
    - Reference [0], "Common pitfalls", 1: compare with numerical differences
    - Bengio, Léonard & Courville (2013), "Estimating or propagating gradients through
      stochastic neurons": the straight-through estimator
    - `max_against` and `min_entries` are our choice: a correct backward is against nothing,
      one of the inverted condition against everything
    """

    code: ClassVar = "GL503"
    name: ClassVar = "gradient-check-failed"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.BACKWARD
    exact: ClassVar = True
    help: ClassVar = (
        "Correct the function's backward; torch.autograd.gradcheck compares it with differences."
    )

    max_against: float = 0.9
    min_entries: int = 16

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no custom function was compared."""
        if "custom-derivatives" not in trace.facts.probes:
            return "no function of the user's own was compared with differences"
        return None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each function whose backward contradicts its forward."""
        for name, seen in trace.facts.probes.get("custom-derivatives", {}).items():
            sloped, against, flat = (int(seen[key]) for key in ("sloped", "against", "flat"))
            if min(sloped, flat) < self.min_entries or not against > self.max_against * sloped:
                continue
            nodes = (op for op in trace.graph.of_kind("custom") if op.name == f"{name}Backward")
            op = next(nodes, None)
            yield self.finding(
                op.module if op is not None else "",
                f"{name}.backward has no gradient, or one of the wrong sign, at {against} of the "
                f"{sloped} entries at which forward rises or falls, and passes one at {flat} at "
                "which it is flat",
                trace=trace,
                source=op.source if op is not None else None,
                evidence={
                    "against": against / sloped,
                    "limit": self.max_against,
                    "sloped": sloped,
                    "flat": flat,
                },
            )
