"""Layers that the model does not know of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Event, Trace


@dataclass(frozen=True)
class UnregisteredModule(Rule):
    """Layers kept in a plain list or dict instead of a ModuleList.

    ## What it does
    Flags attributes that hold modules with trainable parameters without being registered:
    lists, tuples and dicts of layers; and tensors that were computed from a parameter when the
    model was built, as ``self.scale = nn.Parameter(torch.randn(8)) * 0.1`` does.

    ## Why is this bad?
    `parameters()`, `state_dict()`, `to()` and `train()` do not reach such layers: the
    optimizer never updates them, checkpoints lose them, and they stay on the CPU.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(16, 16) for _ in range(3)]
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.head(x)

    model = Net()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.head(x)

    model = Net()
    ```

    ## When it is wrong
    A teacher or a frozen copy is kept in a list on purpose, to stay out of `state_dict`:
    frozen parameters and modules in eval mode are not meant. Where the optimizer was given
    the hidden parameters by hand they learn, and it is a warning.

    ## References
    - PyTorch documentation of `ModuleList`
    """

    code: ClassVar = "GL709"
    name: ClassVar = "unregistered-module"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Keep the layers in an nn.ModuleList or nn.ModuleDict."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each attribute that hides layers."""
        optimizer = trace.facts.optimizer
        foreign = optimizer.foreign if optimizer and not optimizer.probe else 0
        seen: set[tuple[str | None, str]] = set()
        for event in trace.events("unregistered-module"):
            attribute = str(event.detail.get("attribute", ""))
            if (event.module, attribute) in seen or not _trains(event):
                continue
            seen.add((event.module, attribute))
            entries = int(event.detail.get("parameters", 0))
            learns = foreign >= int(event.detail.get("modules", 1)) > 0
            owner = f"{event.module}.{attribute}" if event.module else attribute
            container = event.detail.get("container", "list")
            what = f"{container} of {event.detail.get('kind', 'modules')}"
            if container == "tensor":
                what = "computed from a Parameter, and none itself"
            yield self.finding(
                event.module,
                f"{owner} ({what}) hides {entries} trainable weights from the model"
                + (", the optimizer was given them by hand" if learns else ""),
                trace=trace,
                help="Compute first and wrap the result: nn.Parameter(torch.randn(n) * 0.01)."
                if container == "tensor"
                else self.help,
                severity=Severity.WARNING if learns else Severity.ERROR,
                evidence={"attribute": attribute, "parameters": entries},
            )


def _trains(event: Event) -> bool:
    """Whether the hidden modules are meant to be trained: not frozen, not in eval mode."""
    detail = event.detail
    return int(detail.get("parameters", 0)) > 0 and bool(detail.get("training", True))
