"""Outputs of one sample that depend on another's input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import SHAPES, Operation
from gradlint.rules._later import phases
from gradlint.rules._views import by, dealt_anew
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, TensorFacts, Trace

_JOINS = (
    "IndexAdd", "IndexReduce", "IndexPut", "Index", "Scatter", "Gather", "Sparse", "Segment",
    "Sort", "Topk", "Cumsum", "Cumprod", "Roll", "Flip", "Unique", "CopySlices",
)  # fmt: skip
"""Beginnings of the names of operations that let rows meet on purpose."""

_ALONG = frozenset({"RNN", "LSTM", "GRU", "Conv1d", "MultiheadAttention", "TransformerEncoder"})
"""Modules that look along an axis."""

_TIME_FIRST = frozenset({"RNN", "LSTM", "GRU", "MultiheadAttention"})
"""Layers that take time on axis 0 and samples on axis 1 where batch_first is not set."""

_UNROLLED = frozenset({"RNN", "LSTM", "GRU"})
"""Layers whose steps a CPU's graph shows one by one."""

_ROUTES = re.compile(r"moe|experts?\b|router|switch|capacity", re.IGNORECASE)
"""Experts with a capacity: who comes first in the batch is served first."""


@dataclass(frozen=True)
class BatchLeakage(Rule):
    """A model that mixes the samples of a batch.

    ## What it does
    After training, in evaluation mode, replaces single samples of a batch by others and
    turns the batch around. Flags a model in which the outputs of the samples that stayed
    change by more than `max_leak` of their size, and which does not return the same outputs
    in the turned order: rows are taken apart and put together wrongly. Warns of a model that
    does, where a `MultiheadAttention` without `batch_first` is given the batch on axis 0:
    it attends over the samples instead of over the positions of each, and where features are
    divided by their norm over the batch. It warns, also in a
    watched loop, where no sample is replaced, of recurrent layers and attention without
    `batch_first` that are given the batch on axis 0, unless floating inputs follow on from each
    other there: frames of a film correlate with the next by more than `max_alike`. There it warns
    of views, too, by which axis 1 gets the length of the batch, and of those that cut what was
    joined along the batch into as many rows as there are samples; of networks that the loop
    trains later as of the first.

    ## Why is this bad?
    Each prediction is made from parts of other samples, whose labels it has nothing to do
    with. The loss falls on a fixed batch; on another batch, or on one sample, the model
    computes something else.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 16)
            self.head = nn.Linear(16 * 10, 3)

        def forward(self, x):
            n, t, c = x.shape
            h = torch.relu(self.fc(x.view(t, n, c)))
            return self.head(h.transpose(0, 1).reshape(n, -1))

    model = Net()
    batch = (torch.randn(32, 10, 8), torch.randint(0, 3, (32,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 16)
            self.head = nn.Linear(16 * 10, 3)

        def forward(self, x):
            n, t, c = x.shape
            h = torch.relu(self.fc(x.transpose(0, 1)))
            return self.head(h.transpose(0, 1).reshape(n, -1))

    model = Net()
    batch = (torch.randn(32, 10, 8), torch.randint(0, 3, (32,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Samples may be compared on purpose: what does not depend on their order (statistics of
    the batch, attention over samples that is written as such) is silent, but for that norm. So
    are models in which axis 0 is not proven to count samples by one target each (time first,
    nodes of a graph), those that hand all rows to a layer as one sequence (frames of a video,
    sentences of a text) or loop over them, scores of all pairs, gathers and scatters, experts
    with a capacity, and training steps written by the user.

    ## References
    - Karpathy (2019), "A recipe for training neural networks": use backprop to chart
      dependencies; a view in place of a transposition mixes the batch
    - `max_alike` is twice the spread of 24 independent series of two degrees of freedom
    - `max_leak` is a hundred times what float32 rounding adds up to; without a leak the
      outputs of the other samples stay the same, bit for bit.
    """

    code: ClassVar = "GL608"
    name: ClassVar = "batch-leakage"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = (
        "Look for a view or reshape where transpose or permute is meant, and for batch_first of "
        "a recurrent layer or attention."
    )

    max_leak: float = 1e-4
    max_alike: float = 0.3

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why samples cannot be told apart, or None."""
        if "batch-leakage" not in trace.facts.probes and trace.facts.loop is None:
            return "single samples of the batch were not replaced"
        if trace.facts.synthesized:
            return "the batch was made up: its axes prove nothing"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        seen = trace.facts.probes.get("batch-leakage")
        if seen is None:
            found = (
                found
                for phase in phases(trace)
                for found in (*self._along_the_batch(phase), *self._viewed(phase))
            )
            yield from islice(found, 1)
            return
        leak, order = float(seen["leak"]), float(seen["order"])
        rows, module = int(seen["rows"]), seen.get("module")
        if not leak > self.max_leak or not _counts_samples(trace, rows):
            return
        if order <= self.max_leak:
            yield from self._over_samples(trace, rows, module, leak)
            yield from self._by_the_batch(trace, rows, leak)
            return
        if any(m.kind in _TIME_FIRST and m.calls for m in trace.modules.values()):
            along = list(self._along_the_batch(trace, leak))
            if along or _unrolled(trace, rows):
                yield from along
                return
        if any(_ROUTES.search(text) for m in trace.modules.values() for text in (m.path, m.kind)):
            return
        place = f", first in {module}" if module else ""
        yield self.finding(
            module or "",
            f"replacing one sample changes the outputs of the others by {leak:.2g} of their size"
            f"{place}: samples of the batch are mixed",
            trace=trace,
            evidence={"leak": leak, "order": order, "limit": self.max_leak},
        )

    def _over_samples(
        self, trace: Trace, rows: int, module: str | None, leak: float
    ) -> Iterator[Finding]:
        """Yield a finding if all attention modules take the samples for positions."""
        attends = [m for m in trace.modules.values() if m.kind == "MultiheadAttention" and m.calls]
        if module not in [m.path for m in attends] or not _is_sequence(trace.facts.inputs[0]):
            return
        for found in attends:
            shape = found.input_shape or ()
            if found.options.get("batch_first") is not False or len(shape) != 3:
                return
            if shape[0] != rows:
                return
        yield self.finding(
            module,
            f"attention without batch_first is given {by(attends[0].input_shape)} and attends "
            f"over the {rows} samples: replacing one changes the outputs of the others by "
            f"{leak:.2g} of their size",
            trace=trace,
            severity=Severity.WARNING,
            help="Construct the attention, or its transformer layer, with batch_first=True.",
            evidence={"leak": leak, "limit": self.max_leak},
        )

    def _by_the_batch(self, trace: Trace, rows: int, leak: float) -> Iterator[Finding]:
        """Yield a finding if features are divided by a norm that is taken over the samples."""
        graph = trace.graph
        for op in graph.of_kind("linalg_vector_norm", "norm"):
            (source,) = graph.inputs_of(op) if len(op.inputs) == 1 else (op,)
            over = op.attributes.get("dims", (op.attributes.get("dim"),))
            if op.in_loss or over != (0,) or source.shape[:1] != (rows,) or len(source.shape) < 2:
                continue
            behind = graph.ahead(op, lambda o: o.kind in SHAPES | {"clamp", "shift"})
            if not any(o.kind == "div" and source.id in o.inputs for o in behind):
                continue
            yield self.finding(
                op.module,
                f"features are divided by their norm over the {rows} samples of the batch: "
                f"replacing one changes the outputs of the others by {leak:.2g} of their size",
                trace=trace,
                severity=Severity.WARNING,
                source=op.source,
                help="Take the norm over the features: F.normalize(x, dim=-1).",
                evidence={"leak": leak, "limit": self.max_leak},
            )
            return

    def _viewed(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for the first view that deals the samples out anew."""
        rows = trace.facts.batch_size or 0
        if rows < 2 or not _counts_samples(trace, rows):
            return
        found = dealt_anew(trace.graph, rows)
        if found is None:
            return
        op, says = found
        yield self.finding(
            op.module,
            says,
            trace=trace,
            severity=Severity.WARNING,
            source=op.source,
            help="Use transpose or permute to move an axis, and dim=1 to join inputs; a view "
            "only cuts what lies in a row.",
            evidence={"rows": rows, "shape": list(op.shape), "limit": self.max_leak},
        )

    def _along_the_batch(self, trace: Trace, leak: float | None = None) -> Iterator[Finding]:
        """Yield a finding if all layers that look along an axis look along the samples."""
        looks = [m for m in trace.modules.values() if m.kind in _TIME_FIRST and m.calls]
        rows = (looks[0].input_shape or (0,))[0] if looks else 0
        if rows < 2 or not _counts_samples(trace, rows):
            return
        alike = trace.facts.inputs[0].neighbors
        if trace.facts.inputs[0].floating and (alike is None or alike > self.max_alike):
            return  # each row goes on where the last ended: they are frames
        for found in looks:
            shape = found.input_shape or ()
            if found.options.get("batch_first") is not False or len(shape) != 3:
                return
            if shape[0] != rows or shape[1] in (1, rows):
                return
        first = looks[0]
        does = "attends" if first.kind == "MultiheadAttention" else "runs"
        yield self.finding(
            first.path,
            f"{first.kind} without batch_first is given {by(first.input_shape)} and {does} over "
            f"the {rows} samples of the batch"
            + (
                "" if leak is None else f": replacing one changes the others' outputs by {leak:.2g}"
            ),
            trace=trace,
            severity=Severity.WARNING,
            help="Construct it with batch_first=True, or transpose its input; a view in place of "
            "a transposition mixes the samples.",
            evidence={"rows": rows, "leak": leak, "limit": self.max_leak, "neighbors": alike},
        )


def _counts_samples(trace: Trace, size: int) -> bool:
    """Whether axis 0 is proven to count independent samples."""
    facts = trace.facts
    if not facts.inputs or len(facts.targets) != 1 or not facts.outputs:
        return False
    given, target, output = facts.inputs[0], facts.targets[0], facts.outputs[0]
    if any(t.shape[:1] != (size,) for t in (given, target, output)):
        return False
    if size in (*given.shape[1:2], *output.shape[1:]):
        return False
    if not (_one_each(target) or len(given.shape) == 4):
        return False
    if any(_joins_rows(op, size) for op in trace.graph if not op.in_loss and _is_told(trace, op)):
        return False
    if any(_takes_one_sequence(m, size) for m in trace.modules.values()):
        return False
    return _is_sequence(given) or _only_reshapes(trace)


def _is_told(trace: Trace, op: Operation) -> bool:
    """Whether `op` is one of the model's own, not a step of a recurrent layer on a CPU."""
    return trace.module_kind(op.module or "") not in _UNROLLED


def _unrolled(trace: Trace, size: int) -> bool:
    """Whether a recurrent layer on a CPU hands on a row for each of `size` steps.

    No other operation joins rows where they count samples.
    """
    return any(_joins_rows(op, size) for op in trace.graph if not op.in_loss)


def _is_sequence(given: TensorFacts) -> bool:
    """Whether each row is more than a vector of features."""
    return len(given.shape) > 2 or (given.integral and len(given.shape) == 2)


def _one_each(target: TensorFacts) -> bool:
    return len(target.shape) == 1 or target.shape[1:] == (1,)


def _joins_rows(op: Operation, size: int) -> bool:
    """Whether rows meet by design: pairs, nodes of a graph, sorting, gathering."""
    if op.name.startswith(_JOINS) and op.shape[:1] == (size,):
        return True
    if op.kind == "concat" and len(op.inputs) >= size:
        return True  # a loop over the rows: time steps, or nodes
    return op.kind == "matmul" and size in op.shape and (len(op.shape) == 2 or op.missing > 0)


def _takes_one_sequence(module: ModuleFacts, size: int) -> bool:
    """Whether a module is given all rows as one sequence (frames of a video, a text)."""
    shape = module.input_shape or ()
    if module.kind not in _ALONG or size not in shape:
        return False
    if len(shape) == 2:
        return True
    time_first = shape[:2] == (size, 1) and module.options.get("batch_first") is False
    return shape[0] == 1 or time_first


def _only_reshapes(trace: Trace) -> bool:
    """Whether rows of features meet nothing that looks along an axis, and some are reshaped."""
    kinds = {op.kind for op in trace.graph if not op.in_loss}
    looks = kinds & {"rnn", "matmul", "attention", "conv", "conv_transpose", "softmax"}
    again = any(m.leaf and m.calls > 1 for m in trace.modules.values())
    return not looks and not again and bool(kinds & {"view", "transpose"})
