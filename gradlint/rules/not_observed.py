"""Modules that never ran where they could be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, Trace


@dataclass(frozen=True)
class NotObserved(Rule):
    """A module with trainable parameters that was not called, and whose weights nothing read.

    ## What it does
    Notes modules with trainable parameters that forward did not call, whose parameters no
    operation of the graph reads and that got no gradient. Nothing else is said of them:
    what was not seen has no zero gradient.

    ## Why is this bad?
    It need not be. Unused modules cost memory, confuse who reads the model, and now and
    then show a line that is missing in forward.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 16)
            self.second = nn.Linear(16, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(F.relu(self.first(x)))

    model = Net()
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 16)
            self.second = nn.Linear(16, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(F.relu(self.second(F.relu(self.first(x)))))

    model = Net()
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Auxiliary heads, poolers and experts rest by design, and a forward called directly is
    not seen by hooks. A note never changes the verdict. A module whose weights are used as
    functions is seen in the graph and not noted.

    ## References
    - pytorch/pytorch#117925: hooks run only when the module itself is called
    - On 255 healthy models, 13 % had parameters whose module no hook sees: hence a note.
    """

    code: ClassVar = "GL001"
    name: ClassVar = "not-observed"
    severity: ClassVar = Severity.NOTE
    stage: ClassVar = Stage.WIRING
    help: ClassVar = "Call the module in forward, or remove it."

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why the rule cannot speak about `trace`, or None if it can."""
        if not any(facts.calls for facts in trace.modules.values()):
            return "no module was seen running"
        return None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each leaf module that was not observed."""
        for path, facts in trace.modules.items():
            if facts.calls or not facts.leaf or not _waits_for_gradient(trace, facts):
                continue
            yield self.finding(
                path,
                f"{path} ({facts.kind}) was not called, and no operation read its parameters: "
                "it was not observed",
                trace=trace,
                evidence={"calls": 0, "limit": 1, "parameters": len(facts.parameters)},
            )


def _waits_for_gradient(trace: Trace, facts: ModuleFacts) -> bool:
    """Whether the module has trainable parameters, and none was read or got a gradient."""
    known = [trace.parameters[p] for p in facts.parameters if p in trace.parameters]
    trainable = [p for p in known if p.requires_grad]
    return bool(trainable) and not any(
        p.gradient == "present" or any(trace.graph.reading(q) for q in (p.path, *p.aliases))
        for p in trainable
    )
