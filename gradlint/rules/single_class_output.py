"""Fewer outputs than the task has classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import Operation
from gradlint.rules._losses import CLASSIFICATION, is_shape, loss_groups, place
from gradlint.rules._targets import different_labels
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, Trace


@dataclass(frozen=True)
class SingleClassOutput(Rule):
    """A softmax over one logit, or fewer outputs than classes.

    ## What it does
    Flags a softmax over an axis of length 1 in front of the loss, cross-entropy over one
    class, and class labels of which there are more different ones than outputs.

    ## Why is this bad?
    The softmax of one number is 1 whatever the number: the loss is constant and every
    gradient exactly zero. With fewer outputs than classes torch raises, or reads the wrong
    entry.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Softmax(dim=1))
    x = torch.randn(64, 16)
    batch = (x, (x.sum(dim=1, keepdim=True) > 0).float())
    loss_fn = nn.BCELoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    x = torch.randn(64, 16)
    batch = (x, (x.sum(dim=1, keepdim=True) > 0).float())
    loss_fn = nn.BCELoss()
    ```

    ## When it is wrong
    Attention over a single key also is a softmax over one value; only those that reach the
    loss through changes of shape alone are meant. A contrastive loss over a batch of one
    sample has one class too: with a batch of one the rule says nothing.

    ## References
    - exp(z) / exp(z) = 1; the pigeonhole principle
    """

    code: ClassVar = "GL604"
    name: ClassVar = "single-class-output"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = (
        "Use a sigmoid with BCELoss (or BCEWithLogitsLoss) for one output, "
        "or give the last layer one output for each class."
    )
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for the softmax or the loss over too few classes."""
        alone = trace.facts.batch_size == 1
        softmax = None if alone else self._single(trace)
        if softmax is not None:
            yield self.finding(
                softmax.module,
                f"{softmax.kind} over 1 value gives the same whatever the value: the loss is "
                "constant and its gradient zero",
                trace=trace,
                evidence={"classes": 1, "shape": list(softmax.shape)},
            )
        for group in loss_groups(trace):
            found = self._loss(trace, group, alone=alone or softmax is not None)
            if found is not None:
                yield found

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loss was seen."""
        seen = len(trace.graph) or trace.facts.losses or trace.events("exception")
        return None if seen else "no loss was seen"

    def _single(self, trace: Trace) -> Operation | None:
        """Return a softmax over one value that reaches the loss, if there is one."""
        graph = trace.graph
        for op in graph.of_kind("softmax", "log_softmax"):
            dim = op.attributes.get("dim")
            if not isinstance(dim, int) or dim >= len(op.shape) or op.shape[dim] != 1:
                continue
            through = graph.ahead(op, lambda o: is_shape(o) and not o.in_loss)
            if any(o.in_loss for o in through):
                return op
        return None

    def _loss(self, trace: Trace, group: list[LossFacts], *, alone: bool) -> Finding | None:
        first = group[0]
        if first.kind not in CLASSIFICATION:
            return None
        if first.classes == 1:
            if alone:
                return None
            return self.finding(
                place(trace, first),
                f"{first.kind} over 1 class: its value and its gradient are zero for any output",
                trace=trace,
                evidence={"classes": 1},
            )
        for seen in group:
            labels = different_labels(seen)
            if labels is not None and seen.classes and labels > seen.classes:
                return self.finding(
                    place(trace, seen),
                    f"the targets hold {labels} different classes, the model has "
                    f"{seen.classes} outputs",
                    trace=trace,
                    help="Give the last layer one output for each class.",
                    evidence={"labels": labels, "classes": seen.classes},
                )
        return None
