"""Softmax over an axis that should not compete with itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import ACTIVATIONS, SHAPES, SOFTMAXES, WEIGHTED, Operation
from gradlint.rules._chains import weight_of
from gradlint.rules._later import phases
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_FROM_UNIT = frozenset({"view", "squeeze", "cast", "clone", "dropout", "parameter_add", "scale"})

_ENTRY_BY_ENTRY = (
    ACTIVATIONS
    | SOFTMAXES
    | {"embedding", "add", "mul", "scale", "shift", "parameter_add", "parameter_mul"}
    | {"dropout", "cast", "clone", "layer_norm"}
)
"""Kinds whose result has the axes of what they read; a table of embeddings adds one at the end."""


@dataclass(frozen=True)
class SoftmaxAxis(Rule):
    """A softmax over the batch, or over an axis that holds one entry.

    ## What it does
    Flags a softmax inside the model that normalizes over the batch axis, an error where the
    targets prove that axis to be samples; and a softmax over an axis of length 1 that cannot
    have another length: the one unit of a layer (an error), or attention to the only
    position of inputs that have no positions (a warning). A watched loop may train other
    networks later, a student after its teacher: their graphs are judged by their own data.

    ## Why is this bad?
    Over the batch, the samples share one unit of probability: each output depends on who
    else is in the batch, and a batch of one always gives 1. Over one entry the result is the
    constant 1: no gradient reaches what computed it.

    ## Example
    ```python
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 16)
            self.score = nn.Linear(16, 1)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            h = torch.tanh(self.body(x))
            share = torch.softmax(self.score(h), dim=-1)
            return self.head((share * h).sum(dim=1))

    model = Pool()
    batch = (torch.randn(32, 10, 8), torch.randint(0, 3, (32,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 16)
            self.score = nn.Linear(16, 1)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            h = torch.tanh(self.body(x))
            share = torch.softmax(self.score(h), dim=1)
            return self.head((share * h).sum(dim=1))

    model = Pool()
    batch = (torch.randn(32, 10, 8), torch.randint(0, 3, (32,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Layouts with the batch on another axis (time first), nodes of one graph, bags of
    instances and slots compete over axis 0 by design: without a target per entry of that
    axis, or where two axes have the batch's length and axis 0 cannot be followed from inputs
    to outputs, the rule is silent. So are softmaxes on
    the loss side (contrastive losses), those normalized over another axis as well (Sinkhorn,
    dual softmax), and those of parameters alone. A mixture of one component is constant by
    its configuration, and is flagged. At the output, single-class-output speaks.

    ## References
    - The definition of softmax; there is no threshold
    """

    code: ClassVar = "GL113"
    name: ClassVar = "softmax-axis"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.WIRING
    help: ClassVar = (
        "Name the axis whose entries compete: classes are dim=-1 of the logits, positions "
        "dim=1 of a (batch, position, …) score."
    )

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no softmax to judge, or None."""
        graphs = [seen.graph for seen in phases(trace)]
        if not any(op.kind in SOFTMAXES and not op.in_loss for graph in graphs for op in graph):
            return "no softmax in the model's graph"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each softmax over the wrong axis."""
        known: set[tuple[str | None, str]] = set()
        for seen in phases(trace):
            for found in self._in_graph(seen):
                if (found.module, found.message) not in known:
                    known.add((found.module, found.message))
                    yield found

    def _in_graph(self, trace: Trace) -> Iterator[Finding]:
        for op in trace.graph.of_kind(*SOFTMAXES):
            axis = op.attributes.get("dim")
            if op.in_loss or not isinstance(axis, int) or not 0 <= axis < len(op.shape):
                continue
            if not _reads_data(trace, op) or _normalized_twice(trace, op, axis):
                continue
            length = op.shape[axis]
            severity = _over_batch(trace, op) if axis == 0 else None
            if severity is not None:
                what = f"normalizes over axis 0, the batch of {length} samples"
            elif length == 1 and (severity := _over_one(trace, op, axis)) is not None:
                what = f"normalizes over axis {axis}, which holds one entry: its result is always 1"
            else:
                continue
            shape = " × ".join(str(size) for size in op.shape)
            yield self.finding(
                op.module,
                f"{op.kind} {what} (shape {shape})",
                trace=trace,
                severity=severity,
                evidence={"axis": axis, "length": length, "shape": list(op.shape), "kind": op.kind},
            )


def _reads_data(trace: Trace, op: Operation) -> bool:
    before = (op, *trace.graph.ancestors(op))
    return any(o.missing or o.kind in ("embedding", "rnn") for o in before)


def _normalized_twice(trace: Trace, op: Operation, axis: int) -> bool:
    """Whether the same scores, or the result, also go through a softmax over another axis."""
    graph = trace.graph
    near = [o for source in graph.inputs_of(op) for o in graph.consumers[source.id]]
    near += graph.ahead(op, lambda o: o.kind in SHAPES | {"log", "div", "shift"})
    near += graph.behind(op, lambda o: o.kind in SHAPES | {"log", "div", "shift"})
    return any(o.kind in SOFTMAXES and o.attributes.get("dim") != axis for o in near)


def _over_batch(trace: Trace, op: Operation) -> Severity | None:
    """Return how sure it is that axis 0 counts samples, None if it is not."""
    facts = trace.facts
    size = op.shape[0]
    if facts.synthesized or size < 2 or len(op.shape) < 2:
        return None
    kept = False
    if size in op.shape[1:] and _swaps_axes(trace, op):
        kept = _labels_rows(trace, size) and _keeps_rows(trace, op)
        if not kept:
            return None
    if not facts.targets or not facts.outputs or not facts.inputs:
        return None
    target, output, given = facts.targets[0], facts.outputs[0], facts.inputs[0]
    if any(t.shape[:1] != (size,) for t in (target, output, given)):
        return None
    if any(_joins_rows(o, size) for o in trace.graph):
        return None
    if kept or target.shape[1:2] != given.shape[1:2]:
        return Severity.ERROR
    # A target for every entry of the input: samples of features, or time first.
    return Severity.WARNING if len(given.shape) == 2 and given.floating else None


def _swaps_axes(trace: Trace, op: Operation) -> bool:
    """Whether axis 0 is not known to be the first axis of the inputs still."""
    flat = len(op.shape) == 2 and all(len(t.shape) == 2 for t in trace.facts.inputs)
    before = trace.graph.ancestors(op)
    return not flat or any(o.kind in ("transpose", "view", "matmul") for o in before)


def _labels_rows(trace: Trace, size: int) -> bool:
    """Whether the one loss compares each entry of the outputs' axis 0 with one label."""
    seen = trace.facts.losses[0] if len(trace.facts.losses) == 1 else None
    if seen is None or seen.target is None or seen.output is None:
        return False
    return seen.target.shape == (size,) and seen.output.shape[:1] == (size,)


def _keeps_rows(trace: Trace, op: Operation) -> bool:
    """Whether axis 0 stays what it is from the inputs to the softmax, and on to the outputs."""
    graph = trace.graph
    way = (*graph.ancestors(op), op, *graph.descendants(op))
    return all(_keeps_axis(trace, o) for o in way if not o.in_loss)


def _keeps_axis(trace: Trace, op: Operation) -> bool:
    """Whether axis 0 of the result is axis 0 of what `op` reads, or `op` is inside a Linear."""
    if op.kind == "linear" or trace.module_kind(op.module or "") == "Linear":
        return True
    if op.kind in ("sum", "mean"):
        return 0 not in op.attributes.get("dims", (0,))
    same = all(len(o.shape) == len(op.shape) for o in trace.graph.inputs_of(op))
    return op.kind in _ENTRY_BY_ENTRY and same


def _joins_rows(op: Operation, size: int) -> bool:
    """Whether rows are the nodes of one graph: mixed by an adjacency matrix or by scattering."""
    adjacency = op.kind == "matmul" and op.missing > 0 and len(op.shape) == 2
    scatters = op.name.startswith(("IndexAdd", "Scatter", "Sparse", "IndexReduce"))
    return not op.in_loss and op.shape[:1] == (size,) and (adjacency or scatters)


def _over_one(trace: Trace, op: Operation, axis: int) -> Severity | None:
    """Return how bad a softmax over one entry is; None where the axis can be longer."""
    graph = trace.graph
    if op.id in graph.output_ids or any(o.in_loss for o in graph.following(op)):
        return None
    alike = [o for o in graph.of_kind(op.kind) if o.module == op.module and o.id != op.id]
    if any(o.shape[axis : axis + 1] != (1,) for o in alike):
        return None  # an unrolled loop that begins with one entry
    if axis == len(op.shape) - 1:
        for source in graph.behind(op, lambda o: o.kind in _FROM_UNIT):
            weight = weight_of(trace, source) if source.kind in WEIGHTED else None
            if weight and source.shape[-1:] == (1,) and 1 in trace.parameters[weight].shape:
                return Severity.ERROR
    inputs = trace.facts.inputs
    flat = bool(inputs) and all(len(t.shape) == 2 and t.floating for t in inputs)
    scores = graph.behind(op, lambda o: o.kind in SHAPES | {"scale", "shift"})
    if flat and not trace.facts.synthesized and any(o.kind == "matmul" for o in scores):
        return Severity.WARNING
    return None
