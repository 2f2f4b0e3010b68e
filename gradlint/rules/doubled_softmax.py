"""Softmax in front of a loss that applies its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import Graph, Operation
from gradlint.rules._losses import first_behind, is_shape, loss_groups, place
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_NAMES = {"softmax": "softmax", "sigmoid": "sigmoid", "log_softmax": "log_softmax"}
_SQUASHING = ("softmax", "sigmoid")
_LOSS = {
    "bce_with_logits": "BCEWithLogits",
    "logsigmoid": "the log-sigmoid of the loss",
    "soft_margin": "SoftMarginLoss",
}


@dataclass(frozen=True)
class DoubledSoftmax(Rule):
    """Softmax or sigmoid in front of a loss that applies its own.

    ## What it does
    Reads the graph: flags a softmax or sigmoid whose result reaches a `log_softmax` on the
    loss's side (cross-entropy), a `binary_cross_entropy_with_logits`, a `logsigmoid` or a
    `SoftMarginLoss` of the loss's, or a second sigmoid in front of `binary_cross_entropy` through
    changes of shape alone. A softmax written by hand
    is told by its values: all in 0…1, every row summing to 1. Log-softmax in front of
    cross-entropy is the same function twice: a note.

    ## Why is this bad?
    The loss takes its input for unbounded logits. Confined to 0…1 they cannot say more than
    a probability of e / (e + K − 1): with K = 10 classes the loss never falls below 1.5, and
    the gradient has to pass one more flat function.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5), nn.Softmax(dim=1))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A softmax with weights, a product, a sum or a temperature between it and the loss
    (attention, mixtures, logits scaled on purpose) is not meant, nor one over another axis
    than the loss's, nor one that makes the targets: the rule says nothing of them. Nor is the
    log-sigmoid of a difference of two probabilities, which ranks.

    ## References
    - PyTorch documentation of `CrossEntropyLoss`: "the unnormalized logits for each class"
    - Bridle (1990), "Probabilistic interpretation of feedforward classification network outputs"
    """

    code: ClassVar = "GL601"
    name: ClassVar = "doubled-softmax"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Pass the logits to the loss; apply softmax or sigmoid only to predict."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each softmax or sigmoid the loss repeats."""
        graph = trace.graph
        found: set[int] = set()
        for op in graph:
            for before in self._fed_by(graph, op):
                if before.id not in found:
                    found.add(before.id)
                    yield self._finding(trace, before, op)
        if not found:
            yield from self._by_value(trace)

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loss was seen."""
        return None if len(trace.graph) or trace.facts.losses else "no loss was seen"

    def _fed_by(self, graph: Graph, op: Operation) -> Iterator[Operation]:
        """Operations whose function `op`, on the loss's side, applies again."""
        if op.kind == "log_softmax":
            read = [o.kind for o in graph.ahead(op, is_shape)]
            if op.in_loss or "nll" in read:
                for before in first_behind(graph, op):
                    same = before.kind == "sigmoid" or _same_axis(before, op)
                    if before.kind in _NAMES and same:
                        yield before
        elif op.kind == "bce_with_logits" or op.name.startswith("SoftMarginLoss"):
            yield from (o for o in first_behind(graph, op) if o.kind in _SQUASHING)
        elif op.kind == "logsigmoid" and op.in_loss:
            behind = first_behind(graph, op, _same_or_negated)
            yield from (o for o in behind if o.kind in _SQUASHING)
        elif op.kind == "bce":
            for last in first_behind(graph, op):
                if last.kind == "sigmoid":
                    yield from (o for o in first_behind(graph, last) if o.kind in _SQUASHING)

    def _finding(self, trace: Trace, before: Operation, op: Operation) -> Finding:
        name = _NAMES[before.kind]
        if before.kind == "log_softmax":
            return self.finding(
                before.module,
                "log_softmax feeds cross-entropy, which applies its own: the second changes "
                "nothing",
                trace=trace,
                severity=Severity.NOTE,
                help="Pass the logits to cross-entropy, or the log-probabilities to NLLLoss.",
                evidence={"activation": name, "loss": "cross_entropy"},
            )
        if op.kind != "log_softmax":
            loss = _LOSS.get(op.kind, "a second sigmoid")
            return self.finding(
                before.module,
                f"{name} feeds {loss}, which squashes again: from values in 0…1 it makes "
                "probabilities of 0.50…0.73",
                trace=trace,
                evidence={"activation": name, "loss": op.kind, "lowest_probability": 0.5},
            )
        classes = op.shape[_axis(op)] if op.shape else 0
        return self._bounded(trace, before.module, name, classes)

    def _bounded(self, trace: Trace, module: str | None, name: str, classes: int) -> Finding:
        floor = math.log1p((classes - 1) / math.e) if classes > 1 else 0.0
        limit = (
            f": its output in 0…1 keeps the loss of {classes} classes above {floor:.2g}"
            if classes > 1
            else ""
        )
        return self.finding(
            module,
            f"{name} feeds cross-entropy, which applies its own softmax{limit}",
            trace=trace,
            evidence={
                "activation": name,
                "loss": "cross_entropy",
                "classes": classes,
                "lowest_loss": floor,
            },
        )

    def _by_value(self, trace: Trace) -> Iterator[Finding]:
        """Find a softmax the graph does not show, by rows that are probabilities."""
        for group in loss_groups(trace):
            if group[0].kind != "cross_entropy" or (group[0].classes or 0) < 2:
                continue
            if all(
                seen.output is not None
                and len(seen.output.shape) > 1
                and seen.output.shape[1] == seen.classes
                and seen.output.minimum >= 0
                and seen.output.maximum <= 1 + 1e-6
                and seen.row_sum_min is not None
                and seen.row_sum_max is not None
                and abs(seen.row_sum_min - 1) < 1e-3
                and abs(seen.row_sum_max - 1) < 1e-3
                for seen in group
            ):
                module = place(trace, group[0])
                yield self._bounded(trace, module, "a softmax", group[0].classes or 0)


def _axis(op: Operation) -> int:
    dim = int(op.attributes.get("dim", -1))
    return dim if dim < len(op.shape) else -1


def _same_or_negated(op: Operation) -> bool:
    """Whether `op` moves entries, or turns their sign: σ(−x) is the other class's 1 − σ(x)."""
    return op.kind == "neg" or (is_shape(op) and op.kind != "mask")


def _same_axis(before: Operation, op: Operation) -> bool:
    """Whether two softmaxes run over the same axis, as far as shapes between them tell."""
    if "dim" not in before.attributes or "dim" not in op.attributes:
        return True
    if before.id in op.inputs:
        return bool(before.attributes["dim"] == op.attributes["dim"])
    if not before.shape or not op.shape:
        return True
    return before.shape[_axis(before)] == op.shape[_axis(op)]
