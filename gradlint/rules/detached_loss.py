"""A loss that no parameter leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import new_leaf
from gradlint.rules.base import Rule
from gradlint.trace import LoopFacts, Trace


@dataclass(frozen=True)
class DetachedLoss(Rule):
    """A loss that is not connected to any parameter.

    ## What it does
    Says so when the loss has no `grad_fn`: backward raises, or reaches nothing; and when it is
    computed, without any layer, from a new tensor that leads to no parameter. In a loop of
    several phases, also where an optimizer that took over from another one never finds a
    gradient, in `min_seen` steps looked at or more. Warns of a term of the loss that leads, in as
    many, to no parameter but to what the model was called with, where nothing updates that and
    no other term leads to it by way of a parameter.

    ## Why is this bad?
    Nothing is learned. Somewhere between parameters and loss stands a `detach`, `no_grad`,
    `.item()`, `.data`, a NumPy round trip, an `argmax` or another function without a
    derivative, or every parameter is frozen. Derivatives taken without `create_graph` are
    numbers, too: an equation that a network is to fulfill teaches it nothing then.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = lambda outputs, targets: F.cross_entropy(outputs.detach(), targets)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = lambda outputs, targets: F.cross_entropy(outputs, targets)
    ```

    ## When it is wrong
    Never in training; a script that only evaluates has no loss to watch. In a loop that had
    gradients at other steps, and was not ended by it, it is a warning.

    ## References
    - PyTorch notes, "Autograd mechanics", section "Locally disabling gradient computation"
    - `min_seen` is our choice: one step without a gradient may be a dummy one that a schedule
      asks for, and two such schedules may be built
    """

    code: ClassVar = "GL708"
    name: ClassVar = "detached-loss"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = (
        "Compute the loss from the model's own output: no detach(), no_grad, .item(), .numpy() "
        "or argmax in between."
    )
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    min_seen: int = 3

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the loss was detached."""
        events = trace.events("detached-loss")
        if events:
            steps = len({event.step for event in events})
            noun = "step" if steps == 1 else "steps"
            norms = trace.of("total_gradient_norm").at("").training.values
            loop = trace.facts.loop
            went_on = loop is not None and loop.ended != "exception" and any(norms)
            yield self.finding(
                "",
                f"the loss has no gradient function in {steps} {noun}: no parameter leads to it",
                trace=trace,
                severity=Severity.WARNING if went_on else Severity.ERROR,
                step=events[0].step,
                evidence={"steps": steps},
            )
        elif (leaf := new_leaf(trace)) is not None:
            shape = " × ".join(str(size) for size in leaf.shape) or "one number"
            yield self.finding(
                "",
                f"the loss is computed from a new tensor ({shape}) that leads to no parameter",
                trace=trace,
                help="Put the model's own outputs together with torch.stack; torch.tensor(), "
                ".item(), .data and NumPy make a copy without a history.",
                evidence={"steps": 0},
            )
        elif trace.facts.loop is not None:
            yield from self._empty(trace, trace.facts.loop)
            yield from self._term(trace, trace.facts.loop)

    def _term(self, trace: Trace, loop: LoopFacts) -> Iterator[Finding]:
        """Find a summand of the loss that leads to nothing but a batch."""
        term = loop.term
        if term is None or term.seen < self.min_seen:
            return
        shape = " × ".join(str(size) for size in term.shape) or "one number"
        yield self.finding(
            "",
            f"a term of the loss leads to no parameter at {term.seen} steps looked at, but to a "
            f"tensor that the model was called with ({shape}) and that nothing updates",
            trace=trace,
            severity=Severity.WARNING,
            step=term.first,
            help="Take derivatives that the loss is made of with torch.autograd.grad(..., "
            "create_graph=True): without it they lead to no parameter.",
            evidence={"seen": term.seen},
        )

    def _empty(self, trace: Trace, loop: LoopFacts) -> Iterator[Finding]:
        """Find a later phase whose loss leads to nothing that its optimizer holds."""
        for found in loop.empty:
            if found.seen < self.min_seen or found.foreign:  # GL703's to say
                continue
            yield self.finding(
                "",
                f"{found.kind} made {found.steps} steps from step {found.first} on, and backward "
                f"left no gradient at any of the {found.seen} looked at: no parameter leads to "
                "the loss",
                trace=trace,
                step=found.first,
                evidence={"steps": found.steps, "seen": found.seen},
            )
