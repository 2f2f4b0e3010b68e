"""A loss at initialization far above that of guessing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import ACTIVATIONS, NORMALIZATIONS, STRUCTURAL, WEIGHTED, Graph, Operation
from gradlint.rules._chains import initial_value, why_not_initial
from gradlint.rules._losses import predictions
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, Trace

_HANDS_ON = STRUCTURAL | ACTIVATIONS | {"scale", "add", "parameter_add", "parameter_mul"}
"""Operations that may stand between the last layer and the loss."""


@dataclass(frozen=True)
class InitialLossOff(Rule):
    """An untrained network whose loss is far worse than a guess.

    ## What it does
    Compares the loss at step 0 with its chance value: ln K for cross-entropy over K classes,
    ln 2 for binary cross-entropy, and for a squared error the mean square of the targets,
    which is the loss of an output of zero. Flags a cross-entropy above `max_ratio` times
    chance plus `margin`, and a squared error above `max_squared_ratio` times chance.

    ## Why is this bad?
    A network that knows nothing has to be unsure. A large initial loss means confident
    random logits: the first steps only undo them, with softmax or sigmoid saturated.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
    nn.init.normal_(model[2].weight, std=5.0)
    batch = (torch.randn(128, 20), torch.randint(0, 10, (128,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
    nn.init.normal_(model[2].weight, std=0.01)
    batch = (torch.randn(128, 20), torch.randint(0, 10, (128,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Only a loss that is one mean over the batch has a known chance value: sums, weighted or
    combined losses, label smoothing and synthesized batches are not judged, nor are logits
    that compare: distances to prototypes, cosines times a fixed scale (ArcFace with its
    s = 64 and m = 0.5 starts at a loss of 50 by design). Several backward passes before one
    step are judged by the sum of their losses and of their chances. Features in
    their raw units reach logits of a few units from a healthy layer (iris: a loss of 3 where
    chance is 1.1), which the margin allows. A low loss is no fault: a bias set to the
    classes' frequencies starts below ln K.

    ## References
    - Karpathy (2019), "A Recipe for Training Neural Networks": verify loss at init
    - The limits are our choice: logits of standard deviation s cost about s²/2 above ln K,
      so 2 ln K + 2 is passed at s ≈ 3 for 10 classes, where torch's default gives s ≤ 0.6.
    """

    code: ClassVar = "GL105"
    name: ClassVar = "initial-loss-off"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("loss",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Initialize the output layer smaller (nn.init.normal_(layer.weight, std=0.01)) and "
        "check the scale of inputs, targets and logits."
    )

    max_ratio: float = 2.0
    margin: float = 2.0
    max_squared_ratio: float = 100.0

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why no chance value is known, or None."""
        if trace.facts.synthesized:
            return "the batch was synthesized"
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding, at the model."""
        loss = initial_value(trace, "loss", "")
        facts = _only_loss(trace)
        if loss is None or facts is None or not math.isfinite(loss):
            return
        chance, meaning = _chance(facts)
        squared = facts.kind == "mse"
        if not squared and not _are_guesses(trace, facts):
            return
        # The losses of several micro-batches, whether they were divided or not.
        summed = trace.facts.loop.summed if trace.facts.loop is not None else 1
        factor = self.max_squared_ratio if squared else self.max_ratio
        limit = summed * (chance * factor + (0.0 if squared else self.margin))
        chance, meaning = summed * chance, f"{summed} × {meaning}" if summed > 1 else meaning
        if chance <= 0 or not loss > limit:
            return
        yield self.finding(
            "",
            f"loss is {loss:.2g} at step 0, before any training, where chance is {chance:.2g} "
            f"({meaning}; limit {limit:.2g})",
            trace=trace,
            step=0,
            evidence={"loss": loss, "chance": chance, "limit": limit, "kind": facts.kind},
        )


def _only_loss(trace: Trace) -> LossFacts | None:
    """Return the facts of the loss if it is the whole loss, a mean over the batch."""
    found = [facts for facts in trace.facts.losses if facts.step == 0]
    places = {facts.operation for facts in found}
    if len(places) != 1 or found[0].reduction != "mean":
        return None
    place = found[0].operation
    operation = trace.graph.by_id.get(place) if place is not None else None
    if operation is None:
        return None
    # A squared error by hand is a difference, its square and its mean.
    allowed = STRUCTURAL | ({"pow", "square"} if found[0].kind == "mse" else set())
    others = [op for op in trace.graph.descendants(operation) if op.kind not in allowed]
    roots = [op for op in trace.graph if not trace.graph.consumers[op.id]]
    return found[0] if not others and len(roots) == 1 else None


def _are_guesses(trace: Trace, facts: LossFacts) -> bool:
    """Whether the logits are what layers return, not comparisons or the loss's own numbers."""
    found = predictions(trace, facts, lambda op: op.kind in _HANDS_ON)
    return all(not op.in_loss and _is_guess(trace.graph, op) for op in found)


def _is_guess(graph: Graph, op: Operation) -> bool:
    sources = graph.behind(op, lambda o: o.kind in _HANDS_ON)
    if _is_layer(op):
        return not any(source.kind in ("div", "normalize") for source in sources)  # a cosine
    if op.kind not in ("matmul", "mul", "linear"):
        return False
    return all(_is_layer(source) or source.kind == "softmax" for source in sources)


def _is_layer(op: Operation) -> bool:
    if op.kind in WEIGHTED:
        return bool(op.parameters)
    return op.kind in NORMALIZATIONS and op.kind != "normalize"


def _chance(facts: LossFacts) -> tuple[float, str]:
    """Return the loss of a guess and how it is reckoned; 0 where nothing is known."""
    probabilities = facts.row_sum_max is not None and 0.95 < facts.row_sum_max < 1.05
    if facts.classes and (facts.kind == "cross_entropy" or (facts.kind == "nll" and probabilities)):
        return math.log(facts.classes), f"ln {facts.classes}"
    if facts.kind in ("bce", "bce_with_logits"):
        return math.log(2), "ln 2"
    if facts.kind == "mse" and facts.target is not None and facts.target.std > 0:
        return facts.target.mean**2 + facts.target.std**2, "mean square of the targets"
    return 0.0, "unknown"
