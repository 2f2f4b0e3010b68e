"""Dropout rates and places out of the ordinary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import LOSSES, Operation
from gradlint.rules._dropout import is_dropout, rate
from gradlint.rules._losses import is_shape
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_SCORES = LOSSES | {"log_softmax", "sub", "shift"}


@dataclass(frozen=True)
class DropoutRate(Rule):
    """Dropout above the usual rates, or on the model's output.

    ## What it does
    Notes dropout modules with a rate above `max_rate`; warns of a rate of 1 and of dropout
    whose result goes into the loss with nothing but changes of shape between.

    ## Why is this bad?
    Above 0.5 more than half of the signal is noise. On the output, dropout sets predictions
    to 0 at random: the loss then has a floor, and the gradient of those entries is lost.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5), nn.Dropout(0.5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Very wide layers with little data stand higher rates: a note.

    ## References
    - Srivastava et al. (2014), "Dropout", section 7.3: 0.5 in hidden layers
    - Reference [2], question 4: 0.2 to 0.5
    """

    code: ClassVar = "GL804"
    name: ClassVar = "dropout-rate"
    severity: ClassVar = Severity.NOTE
    help: ClassVar = "Use a rate of 0.2 to 0.5, between hidden layers and not on the output."
    stage: ClassVar = Stage.FORWARD

    max_rate: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each dropout out of the ordinary."""
        on_output = {op.module for op in trace.graph if self._on_output(trace, op)}
        for module in sorted(on_output, key=str):
            yield self.finding(
                module,
                f"dropout{_rate_text(trace, module)} sets outputs of the model to 0 before the "
                "loss",
                trace=trace,
                severity=Severity.WARNING,
                evidence={"on_output": True},
            )
        for facts in trace.modules.values():
            value = facts.options.get("p")
            if "Dropout" not in facts.kind or not isinstance(value, (int, float)):
                continue
            if facts.calls == 0 or not facts.training or facts.path in on_output:
                continue
            if value > self.max_rate:
                yield self.finding(
                    facts.path,
                    f"dropout rate {value:.2g} (limit {self.max_rate:.2g})",
                    trace=trace,
                    severity=Severity.WARNING if value >= 1 else Severity.NOTE,
                    evidence={"rate": float(value), "limit": self.max_rate},
                )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there is no dropout."""
        modules = any("Dropout" in m.kind for m in trace.modules.values())
        return None if modules or trace.graph.of_kind("dropout") else "no dropout in the model"

    def _on_output(self, trace: Trace, op: Operation) -> bool:
        """Whether `op` is dropout on what the loss reads."""
        if op.in_loss or not is_dropout(trace, op):
            return False
        following = trace.graph.ahead(op, is_shape)
        return bool(following) and all(o.in_loss and o.kind in _SCORES for o in following)


def _rate_text(trace: Trace, module: str | None) -> str:
    ops = [op for op in trace.graph if op.module == module]
    known = next((r for op in ops if (r := rate(trace, op)) is not None), None)
    return "" if known is None else f" of rate {known:.2g}"
