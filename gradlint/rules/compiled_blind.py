"""Compiled modules that were watched too late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class CompiledBlind(Rule):
    """A compiled module, which cannot be looked into.

    ## What it does
    Names modules that `torch.compile` runs. It is a warning where they were compiled before
    watching began although they were to be looked into, else a note.

    ## Why is this bad?
    Compiled code calls no hook that was placed later, so nothing is known of the activations
    inside, and the rules that read them are silent. Loss, gradients of parameters, clipping
    and updates are seen all the same.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    model = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    ```

    ## When it is wrong
    Never; it says how far the other rules can see. It is no fault of the model.

    ## References
    - pytorch/pytorch#117758: hooks added after the first compiled call are ignored
    """

    code: ClassVar = "GL002"
    name: ClassVar = "compiled-blind"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = (
        "Watch some steps without torch.compile, or run `gradlint check`, to see inside."
    )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched."""
        return NO_LOOP if trace.facts.loop is None else None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each module that cannot be looked into."""
        loop = trace.facts.loop
        if loop is None:
            return
        for path in dict.fromkeys((*loop.blind, *loop.compiled)):
            blind = path in loop.blind
            place = path if path in trace.modules else ""
            says = "was compiled before watching began" if blind else "runs compiled"
            yield self.finding(
                place,
                f"{place or 'the model'} {says}: its activations are not seen, its gradients and "
                "updates are",
                trace=trace,
                severity=Severity.WARNING if blind else Severity.NOTE,
                evidence={"blind": blind},
            )
