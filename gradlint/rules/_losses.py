"""What rules ask of a loss: its observations, what feeds it, whether training got anywhere."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from gradlint.graph import SHAPES, Graph, Operation
from gradlint.trace import LossFacts, Trace

REGRESSION = frozenset({"mse", "l1", "smooth_l1", "huber"})
CLASSIFICATION = frozenset({"cross_entropy", "nll"})
BINARY = frozenset({"bce", "bce_with_logits"})


def is_shape(op: Operation) -> bool:
    """Whether `op` only moves values around."""
    return op.kind in SHAPES


_SAID = {
    "cross_entropy": (
        r"Target -?\d+ is out of bounds",
        r"\d+D (?:or \d+D )?target tensor expected",
        r"Expected floating point type for target with class probabilities",
        r"expected target dtype to be Long",
        r"expected scalar type Long but found",
    ),
    "bce": (r"all elements of input should be between 0 and 1",),
}
"""What torch's losses say of outputs and targets they do not take."""


def refused(trace: Trace) -> tuple[str, str] | None:
    """Return the kind of loss that raised, and what it said of its outputs or targets."""
    for event in trace.events("exception"):
        if event.detail.get("phase") == "forward":
            continue
        text = str(event.detail.get("message", ""))
        for kind, patterns in _SAID.items():
            for pattern in patterns:
                said = re.search(pattern, text)
                if said is not None:
                    return kind, said.group()
    return None


def _refused_loss(trace: Trace) -> list[LossFacts]:
    """Return the facts of a loss that raised, from the model's output and the batch's targets."""
    said = refused(trace)
    outputs = [t for t in trace.facts.outputs if t.floating]
    if said is None or trace.facts.losses or len(outputs) != 1 or len(trace.facts.targets) != 1:
        return []
    output, target = outputs[0], trace.facts.targets[0]
    classes = None
    if said[0] in CLASSIFICATION and output.shape:
        classes = output.shape[1] if len(output.shape) > 1 else output.shape[0]
    return [LossFacts(said[0], output=output, target=target, classes=classes)]


def loss_groups(trace: Trace) -> list[list[LossFacts]]:
    """Observations of the same loss over batches and steps, in groups; one that raised too."""
    groups: dict[tuple[object, ...], list[LossFacts]] = {}
    for seen in (*trace.facts.losses, *_refused_loss(trace)):
        output = seen.output.shape[1:] if seen.output else None
        target = seen.target.shape[1:] if seen.target else None
        groups.setdefault((seen.kind, seen.reduction, output, target), []).append(seen)
    return list(groups.values())


def _elsewhere(graph: Graph, loss: LossFacts) -> bool:
    """Whether a loss stands in the graph of another step: heads may train in turns."""
    return loss.operation is not None and loss.operation not in graph.by_id


def entry(graph: Graph, loss: LossFacts) -> Operation | None:
    """Return the operation that reads the prediction `loss` judges; None if it is not known."""
    if _elsewhere(graph, loss):
        return None
    op = graph.by_id.get(loss.operation) if loss.operation is not None else None
    if op is None:
        kind = "nll" if loss.kind == "cross_entropy" else loss.kind
        of_kind = graph.of_kind(kind) or tuple(o for o in graph.of_kind("log_softmax") if o.in_loss)
        if len(of_kind) != 1:
            return None
        op = of_kind[0]
    if loss.kind == "cross_entropy" and op.kind == "nll":
        before = [o for o in graph.behind(op, is_shape) if o.kind == "log_softmax"]
        return before[0] if before else None
    return op


def predictions(
    trace: Trace, loss: LossFacts, through: Callable[[Operation], bool] = is_shape
) -> tuple[Operation, ...]:
    """Last operations in front of `loss`, looking past those for which `through` holds."""
    graph = trace.graph
    if _elsewhere(graph, loss):
        return _predictions_elsewhere(loss, through)
    op = entry(graph, loss)
    if op is None:
        ends = tuple(graph.by_id[i] for i in sorted(graph.output_ids))
        return ends if len(ends) == 1 and not through(ends[0]) else ()
    return first_behind(graph, op, through)


def _predictions_elsewhere(
    loss: LossFacts, through: Callable[[Operation], bool]
) -> tuple[Operation, ...]:
    """Return the same of a loss in the graph of another step, of which its own part is kept."""
    graph = Graph(loss.before)
    if not loss.before or any(i not in graph.by_id for op in graph for i in op.inputs):
        return ()
    op = entry(graph, replace(loss, operation=loss.before[-1].id))
    return () if op is None else first_behind(graph, op, through)


def first_behind(
    graph: Graph, op: Operation, through: Callable[[Operation], bool] = is_shape
) -> tuple[Operation, ...]:
    """Return what feeds the first input of `op`; a loss reads its prediction there."""
    if not op.inputs:
        return ()
    first = graph.by_id[op.inputs[0]]
    return graph.behind(first, through) if through(first) else (first,)


def place(trace: Trace, loss: LossFacts) -> str | None:
    """Path of the module whose output `loss` judges; None where no module is known."""
    return next((op.module for op in predictions(trace, loss) if op.module), None)


def progress(trace: Trace) -> tuple[float, float] | None:
    """Median loss at initialization and over the last quarter of the steps; None if not seen.

    A loss that ended non-finite counts as infinite, after however few steps.
    """
    losses = trace.of("loss").at("")
    start = [v for v in losses.initial.values if math.isfinite(v)]
    after = losses.training.values
    if after and start and not math.isfinite(after[-1]):
        return statistics.median(start), math.inf
    if len(after) < 4:
        return None
    late = [v if math.isfinite(v) else math.inf for v in after[-max(3, len(after) // 4) :]]
    first = statistics.median(start) if start else after[0]
    return first, statistics.median(late)


def noise(trace: Trace) -> float:
    """Spread of the loss from one step to the next (1.48 × the median absolute change / √2)."""
    values = [v for v in trace.of("loss").at("").training.values if math.isfinite(v)]
    changes = [abs(b - a) for a, b in pairwise(values)]
    return 1.4826 * statistics.median(changes) / math.sqrt(2) if changes else 0.0
