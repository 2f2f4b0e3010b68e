"""Layers that the model does not know of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import STRUCTURAL, Operation
from gradlint.rules.base import Rule
from gradlint.trace import Event, Trace


@dataclass(frozen=True)
class UnregisteredModule(Rule):
    """Layers kept in a plain list or dict instead of a ModuleList.

    ## What it does
    Flags attributes that hold modules with trainable parameters without being registered:
    lists, tuples and dicts of layers; and tensors that were computed from a parameter when the
    model was built, as ``self.scale = nn.Parameter(torch.randn(8)) * 0.1`` does. Flags plain
    tensors, too, that require a gradient, take part in forward as a weight does (what a layer
    reads as its input is data) and were the same after `min_steps` steps and more; and layers
    that `forward` makes, with other weights at every call.

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
    the hidden parameters by hand they learn, and it is a warning. Plain tensors of one entry
    (multipliers and temperatures that an optimizer elsewhere may move) and of zeros (states) are
    left out, and so are copies of layers that a forward makes to train them.

    ## References
    - PyTorch documentation of `ModuleList`
    """

    code: ClassVar = "GL709"
    name: ClassVar = "unregistered-module"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Keep the layers in an nn.ModuleList or nn.ModuleDict."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    min_steps: int = 3

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
        if max(trace.of("loss").steps, default=0) >= self.min_steps:
            yield from self._tensors(trace)
            yield from self._made_anew(trace)

    def _tensors(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each plain tensor that is used as a weight and never moves."""
        for event in trace.events("plain-tensor"):
            attribute, entries = str(event.detail["attribute"]), int(event.detail["parameters"])
            leaves = [o for o in _leaves(trace) if o.attributes.get("attribute") == attribute]
            if entries < 2 or not any(_is_weight(trace, leaf) for leaf in leaves):
                continue
            owner = f"{event.module}.{attribute}" if event.module else attribute
            last = max(trace.of("loss").steps)
            yield self.finding(
                event.module,
                f"{owner} (a tensor of {entries} entries, no nn.Parameter) wants a gradient and "
                f"takes part in forward, and no optimizer moved it up to step {last}",
                trace=trace,
                help=f"Register it: self.{attribute} = nn.Parameter(...), or drop requires_grad.",
                evidence={"attribute": attribute, "parameters": entries},
            )

    def _made_anew(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if forward makes layers of its own at every call."""
        for event in trace.events("made-anew"):
            shapes = [tuple(shape) for shape in event.detail["shapes"]]
            leaves = [o for o in _leaves(trace) if o.attributes.get("parameter")]
            layers = [o for o in leaves if o.shape in shapes and _is_weight(trace, o, by=_APPLIES)]
            if all(_unread(trace, o.shape) for o in layers):
                continue
            told = ", ".join(" × ".join(map(str, o.shape)) for o in layers)
            yield self.finding(
                "",
                f"forward makes layers of its own, with other weights at every call ({told}): "
                "nothing that they learn is kept",
                trace=trace,
                help="Make the layers in __init__ and assign them to the module.",
                evidence={"shapes": [list(o.shape) for o in layers]},
            )
            return


_APPLIES = frozenset({"matmul", "linear", "conv", "conv_transpose"})
"""Operations that multiply by a weight, its path known or not."""


def _leaves(trace: Trace) -> list[Operation]:
    return [op for op in trace.graph.of_kind("input") if not op.in_loss]


def _is_weight(trace: Trace, leaf: Operation, by: frozenset[str] | None = None) -> bool:
    """Whether a leaf meets what the model's parameters made, and is no layer's input.

    What a first layer reads is data: collocation points, images that are attacked. With `by`,
    one of those operations has to be where they meet.
    """
    graph = trace.graph
    if any(
        leaf.id in {o.id for o in before} and not any(o.parameters for o in before)
        for op in trace.weight_layers()
        if op.parameters and op.kind != "embedding"
        for before in [list(graph.ancestors(op))]
    ):
        return False
    met = graph.ahead(leaf, lambda o: o.kind in STRUCTURAL and len(set(o.inputs)) < 2)
    return any(
        (by is None or op.kind in by) and (op.parameters or _others(trace, op, leaf)) for op in met
    )


def _others(trace: Trace, op: Operation, leaf: Operation) -> bool:
    """Whether another side of `op` than `leaf`'s was made with parameters."""
    sides = [(side, *trace.graph.ancestors(side)) for side in trace.graph.inputs_of(op)]
    return any(
        any(o.parameters for o in side) and all(o.id != leaf.id for o in side) for side in sides
    )


def _unread(trace: Trace, shape: tuple[int, ...]) -> bool:
    """Whether the model has a parameter of that shape that nothing reads: one may be its copy."""
    return any(
        known.shape == shape and not trace.graph.reading(path)
        for path, known in trace.parameters.items()
    )


def _trains(event: Event) -> bool:
    """Whether the hidden modules are meant to be trained: not frozen, not in eval mode."""
    detail = event.detail
    return int(detail.get("parameters", 0)) > 0 and bool(detail.get("training", True))
