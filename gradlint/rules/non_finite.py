"""The first number that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Event, Trace

_STAGES = {
    "input": Stage.DATA,
    "target": Stage.DATA,
    "parameter": Stage.INITIALIZATION,
    "forward": Stage.FORWARD,
    "loss": Stage.LOSS,
    "backward": Stage.BACKWARD,
    "update": Stage.UPDATE,
}

_HELP = {
    "input": "Remove or impute the entries that are not finite before they reach the model.",
    "target": "Remove the samples whose targets are not finite, or mask them out of the loss.",
    "parameter": "Initialize the parameter, or load it from an undamaged checkpoint.",
    "loss": "Compute the loss from logits (log_softmax, BCEWithLogitsLoss), or clamp its argument.",
    "update": "Lower the learning rate, or clip the total gradient norm.",
}

_OPERATIONS = {
    "log": "Clamp the argument away from 0, or use log_softmax, logsigmoid or log1p.",
    "sqrt": "Add a small eps inside the root: its derivative is infinite at 0.",
    "rsqrt": "Add a small eps inside the root.",
    "div": "Add a small eps to the divisor.",
    "reciprocal": "Add a small eps to the divisor.",
    "exp": "Subtract the maximum first (logsumexp, softmax), or clamp the exponent.",
    "pow": "Clamp the base away from 0.",
    "norm": "Add a small eps inside the norm: its derivative is undefined at 0.",
    "linalg_vector_norm": "Add a small eps inside the norm: its derivative is undefined at 0.",
    "std": "Add a small eps: the derivative of a standard deviation is infinite at 0.",
}

_VALUES = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity"}


@dataclass(frozen=True)
class NonFinite(Rule):
    """A NaN or an infinity in the data, the weights, the forward, the loss or the gradient.

    ## What it does
    Names the first place at which a number was not finite: the module and the operation that
    made it, the phase (data, parameter, forward, loss, backward, update), the step, and what
    fed it (log of 0, division by 0, overflow). Numbers that are not finite and reach neither
    the loss nor a gradient are left alone.

    ## Why is this bad?
    Every number computed from NaN is NaN: one step later all the weights are.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x):
            return torch.log(torch.relu(self.layer(x)))

    model = Net()
    batch = (torch.randn(64, 8), torch.randn(64, 4))
    loss_fn = nn.MSELoss()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x):
            return torch.log(F.softplus(self.layer(x)) + 1e-3)

    model = Net()
    batch = (torch.randn(64, 8), torch.randn(64, 4))
    loss_fn = nn.MSELoss()
    ```

    ## When it is wrong
    Infinities in masks (attention scores of -inf) are meant, and are no finding while loss
    and gradients are finite. A GradScaler makes an overflow and skips the step by design.
    Where a forward signal explodes with depth first, GL104 is the cause and this the end.

    ## References
    - IEEE 754; `torch.autograd.set_detect_anomaly` finds what arises in backward only
    - A fact: no threshold.
    """

    code: ClassVar = "GL501"
    name: ClassVar = "non-finite"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.FORWARD
    exact: ClassVar = True
    help: ClassVar = "Look at what fed the operation, and keep it inside the operation's range."

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for the first event, if there is one."""
        events = [e for e in trace.events("non-finite") if not _is_harmless(trace, e)]
        if not events:
            return
        first = min(events, key=lambda e: (e.step, _STAGES.get(_phase(e), Stage.FORWARD)))
        phase = _phase(first)
        operation = str(first.detail.get("operation") or "")
        yield self.finding(
            first.module if first.module is not None else "",
            _message(first, phase, operation),
            trace=trace,
            step=first.step,
            parameter=operation if phase == "parameter" and operation else None,
            stage=_STAGES.get(phase, Stage.FORWARD),
            help=_OPERATIONS.get(operation.rstrip("_0123456789")) or _HELP.get(phase, self.help),
            evidence={
                "phase": phase,
                "operation": operation,
                "value": first.detail.get("value", "nan"),
                "fed_by": first.detail.get("fed_by", ""),
                "step": first.step,
                "limit": 0,
            },
        )


def _is_harmless(trace: Trace, event: Event) -> bool:
    """Whether loss and gradients were observed after `event`, and all of them are finite."""
    if _phase(event) not in ("input", "target", "parameter", "forward"):
        return False
    later = trace.since(event.step)
    losses, norms = later.of("loss").values, later.of("total_gradient_norm").values
    return bool(losses and norms) and all(math.isfinite(v) for v in (*losses, *norms))


def _phase(event: Event) -> str:
    return str(event.detail.get("phase") or event.detail.get("what") or "forward")


def _message(event: Event, phase: str, operation: str) -> str:
    value = _VALUES.get(str(event.detail.get("value")), "NaN")
    fed_by = event.detail.get("fed_by")
    first = f"first {value} at step {event.step}"
    if phase in ("input", "target"):
        name = f" {operation!r}" if operation else ""
        return f"{first} in the {phase}{name}{f': {fed_by}' if fed_by else ''}"
    if phase == "parameter":
        return f"{first} in parameter {operation}"
    place = event.module or ("the loss" if phase == "loss" else "the model")
    made = f"{operation} in {place}" if operation else place
    return f"{first} in {phase}: {made}{f', fed by {fed_by}' if fed_by else ''}"
