"""Targets that are not what the loss takes them for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import BINARY, CLASSIFICATION, REGRESSION, loss_groups, place, refused
from gradlint.rules._tables import crosswise, giver_of, weighed_crosswise
from gradlint.rules._targets import (
    Fault,
    a_row_for_all,
    binary,
    broadcasts,
    class_labels,
    class_numbers,
    different_labels,
    fit,
    not_indices,
    outer,
    shapes_differ,
    signs,
)
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, TensorFacts, Trace


@dataclass(frozen=True)
class TargetRange(Rule):
    """Targets outside the loss's range, or of a shape it does not mean.

    ## What it does
    Compares each loss's targets with its output: class labels with 0…K−1 (`ignore_index` left
    out), their shape and dtype with what cross-entropy and NLL want (class indices or rows of
    probabilities, not one-hot integers), the targets of binary cross-entropy with 0…1, and the
    shapes of a difference: (N, 1) against (N) broadcasts to (N, N), and class numbers (N, 1)
    against scores (N, K) are repeated K times. Of a loss of torch's that
    raised, shapes that do not go together are named, too. So are losses (N) times weights
    (N, 1), N labels (N) against scores (N, N), and targets of 0 and 1 of `margin_ranking_loss`
    and `SoftMarginLoss`, which want -1 and 1.

    ## Why is this bad?
    A label out of range raises, or on a GPU kills the process. A target of the wrong shape
    often does not raise at all: the (N, N) table of differences trains every output toward
    the mean of all targets.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1))
    loss_fn = lambda outputs, targets: ((outputs - targets) ** 2).mean()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1))
    loss_fn = lambda outputs, targets: ((outputs.squeeze(1) - targets) ** 2).mean()
    ```

    ## When it is wrong
    Pairwise losses (ranking, quantile, contrastive) broadcast on purpose, with an axis put in
    by hand: only the model's output as it is counts here, or one number chosen of it for each
    sample, of whose table of differences with the targets a loss by hand takes nothing but a mean,
    weighed at most by what the model says of each prediction (a deviation).
    Binary targets outside 0…1 under ``reduction="none"`` mark entries that are left out later.
    Rows of targets that do not sum to 1 are a warning: weighted targets look so.

    ## References
    - PyTorch documentation of `CrossEntropyLoss`, `BCELoss`, "Broadcasting semantics"
    - Tolerance for rows of probabilities: 5 %, our choice, to pass rounding in half precision
    """

    code: ClassVar = "GL605"
    name: ClassVar = "target-range"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Give the targets the values and the shape that the loss documents."
    stage: ClassVar = Stage.DATA
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each loss whose targets do not fit."""
        found = False
        for group in loss_groups(trace):
            for seen in group:
                fault = self._fault(seen) or self._row(trace, seen) or self._signs(trace, seen)
                if fault is not None:
                    found = True
                    yield self._finding(trace, place(trace, seen), fault, seen)
                    break
        broadcast = None if found else self._by_form(trace)
        if broadcast is not None:
            yield broadcast
        elif not found:
            yield from self._raised(trace)

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the targets are not the user's, or none were seen."""
        if trace.facts.synthesized:
            return "the batch was made up: its targets say nothing"
        seen = trace.facts.losses or trace.facts.targets or trace.events("exception")
        by_hand = trace.facts.loop is not None and any(op.in_loss for op in trace.graph)
        return None if seen or by_hand else "no targets were seen"

    def _finding(self, trace: Trace, module: str | None, fault: Fault, seen: LossFacts) -> Finding:
        message, advice, severity = fault
        evidence: dict[str, object] = {"loss": seen.kind, "classes": seen.classes}
        if seen.target is not None:
            evidence["target_minimum"] = seen.target.minimum
            evidence["target_maximum"] = seen.target.maximum
            evidence["target_shape"] = list(seen.target.shape)
        return self.finding(
            module, message, trace=trace, help=advice, severity=severity, evidence=evidence
        )

    def _fault(self, seen: LossFacts) -> Fault | None:
        if seen.target is None or seen.output is None or prod(seen.target.shape) == 0:
            return None
        if seen.kind in CLASSIFICATION and (seen.classes or 0) > 1:
            accepted = seen.operation is not None  # torch took dtype and shape
            fault = None if accepted else not_indices(seen, seen.target, seen.output)
            return fault or class_labels(seen, seen.target, seen.output)
        shapes = seen.output.shape, seen.target.shape
        if seen.kind in BINARY and seen.operation is None and shapes[0] != shapes[1]:
            return shapes_differ(seen.kind, *shapes)
        if seen.kind in BINARY and seen.reduction != "none":
            return binary(seen.target)
        if seen.kind in REGRESSION and seen.operation is None:
            if not fit(*shapes):
                return shapes_differ(seen.kind, *shapes)
            return broadcasts(*shapes) if outer(*shapes) else None
        return class_numbers(seen.output, seen.target) if seen.kind in REGRESSION else None

    def _row(self, trace: Trace, seen: LossFacts) -> Fault | None:
        if seen.kind not in REGRESSION or seen.output is None or seen.target is None:
            return None
        shape, size = seen.target.shape, trace.facts.batch_size
        given = any(target.shape == shape for target in trace.facts.targets)
        a_batch = trace.facts.loop is None and given and (size,) == shape
        return a_row_for_all(seen.output, seen.target, a_batch=a_batch)

    def _signs(self, trace: Trace, seen: LossFacts) -> Fault | None:
        op = trace.graph.by_id.get(seen.operation) if seen.operation is not None else None
        if op is None or seen.target is None or not op.name.startswith("SoftMarginLoss"):
            return None
        return signs("SoftMarginLoss", seen.target)

    def _by_form(self, trace: Trace) -> Finding | None:
        """Find what the form of a loss by hand tells of its targets."""
        return (
            self._broadcast(trace)
            or self._expanded(trace)
            or self._weighed(trace)
            or self._ranked(trace)
        )

    def _ranked(self, trace: Trace) -> Finding | None:
        seen = trace.facts.probes.get("written-losses", {}).get("ranking")
        if seen is None:
            return None
        ends = {"minimum": seen["minimum"], "maximum": seen["maximum"]}
        target = TensorFacts("target", (), "float32", whole=True, **ends)
        fault = signs("margin_ranking_loss", target)
        loss = LossFacts("ranking", target=target)
        return None if fault is None else self._finding(trace, None, fault, loss)

    def _weighed(self, trace: Trace) -> Finding | None:
        found = weighed_crosswise(trace.graph)
        if found is None:
            return None
        op, first, second = found
        return self.finding(
            None,
            f"a loss of shape {first} times {second} is a table {op.shape}: its mean weighs every "
            "sample with the weights of all",
            trace=trace,
            help="Give both the same shape: weights.squeeze(-1), or losses.unsqueeze(-1).",
            evidence={"loss_shape": list(first), "weights_shape": list(second)},
        )

    def _broadcast(self, trace: Trace) -> Finding | None:
        """Find a difference written by hand, or in a loss function, that became an outer one."""
        graph = trace.graph
        for op in graph:
            if op.kind not in ("sub", "shift", "expand") or not op.in_loss or len(op.inputs) != 1:
                continue
            output = graph.by_id[op.inputs[0]]
            if output.in_loss:
                continue
            for target in trace.facts.targets:
                if outer(output.shape, target.shape) == op.shape:
                    fault = broadcasts(output.shape, target.shape)
                    seen = LossFacts("other", target=target)
                    return self._finding(trace, output.module, fault, seen)
        return self._paired(trace)

    def _paired(self, trace: Trace) -> Finding | None:
        """Find a table of differences that a loss by hand averages, told from its entries."""
        seen = trace.facts.probes.get("written-losses", {}).get("pairs")
        if seen is None:
            return None
        count = int(seen["count"])
        output = (count, 1) if seen["column"] else (count,)
        fault = broadcasts(output, crosswise(output))
        module = giver_of(trace.graph, output, (count, count))
        return self._finding(trace, module, fault, LossFacts("other"))

    def _expanded(self, trace: Trace) -> Finding | None:
        """Find a prediction that a loss made square: it keeps its targets as it expanded them."""
        graph = trace.graph
        for op in graph.of_kind("expand"):
            if len(op.inputs) != 1 or not any(o.kind in REGRESSION for o in graph.consumers[op.id]):
                continue
            output = graph.by_id[op.inputs[0]]
            target = crosswise(output.shape)
            if output.shape and outer(output.shape, target) == op.shape:
                fault = broadcasts(output.shape, target)
                return self._finding(trace, output.module, fault, LossFacts("other"))
        return None

    def _raised(self, trace: Trace) -> Iterator[Finding]:
        """Find what torch itself said of the targets, in a loss function that raised."""
        said = refused(trace)
        if said is not None and said[0] in CLASSIFICATION and not self._too_few(trace):
            yield self.finding(None, f"the loss raised on its targets: {said[1]}", trace=trace)

    def _too_few(self, trace: Trace) -> bool:
        """Whether there are more labels than outputs, which is GL604's to say."""
        return any(
            (different_labels(seen) or 0) > (seen.classes or math.inf)
            for group in loss_groups(trace)
            for seen in group
        )
