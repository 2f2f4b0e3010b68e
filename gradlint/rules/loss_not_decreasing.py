"""A loss that stays where it was, or rises."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import CLASSIFICATION, noise, progress
from gradlint.rules._negated import negated
from gradlint.rules._optimizer import NOT_GIVEN, maximizes, steps
from gradlint.rules._updates import median_updates, warming_up
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_EARLY = 5
"""Losses of which the largest is taken for where a run began."""


@dataclass(frozen=True)
class LossNotDecreasing(Rule):
    """A loss without progress although the weights moved.

    ## What it does
    Compares the median loss of the last quarter of the watched steps with the median at
    initialization, and both with the loss's own noise from step to step. Rising by more than
    `max_rise` is an error (clear of the noise, or with every late loss that far above the
    first ones), by a tenth and more than the noise a warning. Staying within
    `min_fall` over `min_steps` steps, while the weights moved by `min_travel` of their size, is
    a warning where the loss is above `max_excess` times that of a guess, and else a note: at a
    guess targets may not follow from inputs, below it the loss may be at its floor. A loss with
    its sign turned round, which a fresh model descends away from its targets, is an error where
    it is the only term, of one optimizer that holds every layer, and has multiplied as above.

    ## Why is this bad?
    Every step costs its time, and the model is no better than at the start.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    x = torch.randn(64, 16)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    x = torch.randn(64, 16)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ```

    ## When it is wrong
    Some tens of steps are few: a low learning rate, a warm-up, a loss already at its floor
    look the same, so the rule asks that the weights have moved. Losses of adversarial and
    reinforcement learning do not fall by design; only losses on given targets are judged, and
    a sum of several terms, whose weights may follow a schedule, is at most a note, and so is a
    classification whose labels are all the same class: the right answer of a contrast stands
    first by convention, and a queue of negatives that fills makes the loss rise. A loss whose
    noise is above `max_noise` of its value is not said to stay.

    ## References
    - Reference [3], symptoms of exploding gradients, 4: the loss never falls
    - The limits are our choice: "did not fall by 0.1 % in 10 steps" flags 21 of 30 healthy runs
    """

    code: ClassVar = "GL609"
    name: ClassVar = "loss-not-decreasing"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("loss",)
    help: ClassVar = (
        "Try to fit one batch; if that fails look at the wiring, then vary the learning rate by "
        "factors of 3."
    )
    stage: ClassVar = Stage.PROGRESS

    max_rise: float = 2.0
    min_fall: float = 0.02
    min_travel: float = 0.05
    max_excess: float = 1.2
    max_noise: float = 0.1
    min_steps: int = 20

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the loss made no progress."""
        seen = progress(trace)
        count = len(trace.of("loss").at("").training)
        if seen is None or not self._supervised(trace):
            return
        first, late = seen
        rough = noise(trace)
        turned = self._turned(trace, -first, -late, rough)
        if turned is not None:
            yield turned
            return
        rises = late > 1.1 * abs(first) and late > first + 3 * rough
        clear = late > first + 6 * rough or self._left(trace)
        doubled = late > self.max_rise * abs(first) and clear
        if late == math.inf or (doubled and _given(trace)):
            severity = Severity.ERROR
        elif count < self.min_steps or warming_up(trace):
            return
        elif rises:
            severity = Severity.WARNING if _given(trace) else Severity.NOTE
        elif self._stays(trace, first, late, rough, count):
            chance = _chance(trace)
            worse = _given(trace) and chance is not None and late > self.max_excess * chance
            severity = Severity.WARNING if worse else Severity.NOTE
        else:
            return
        yield self.finding(
            "",
            f"the loss went from {first:.2g} to {late:.2g} in {count} steps (noise {rough:.1g})"
            + (": the optimizer maximizes it" if maximizes(trace) else ""),
            trace=trace,
            severity=severity,
            help="Build the optimizer without maximize=True." if maximizes(trace) else self.help,
            exact=maximizes(trace),
            evidence={
                "first": first,
                "last": late,
                "noise": rough,
                "steps": count,
                "maximize": maximizes(trace),
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where neither data nor optimizer were the user's."""
        if trace.facts.synthesized:
            return "the batch was made up: there is nothing to learn in it"
        return NOT_GIVEN if not steps(trace) else super().skip_reason(trace)

    def _left(self, trace: Trace) -> bool:
        """Whether no late loss is where the first ones were: growth is no noise."""
        values = trace.of("loss").at("").training.values
        quarter = len(values) // 4
        if quarter < 3:
            return False
        early = max(abs(v) for v in values[:quarter][:_EARLY])
        return min(values[-quarter:]) > self.max_rise * early

    def _turned(self, trace: Trace, first: float, late: float, rough: float) -> Finding | None:
        """Find a loss with its sign turned round that went from `first` to `late`."""
        chance, count = _chance(trace), len(trace.of("loss").at("").training)
        fresh = chance is not None and first >= 0.5 * chance
        if not fresh or late <= self.max_rise * first or late <= first + 6 * rough:
            return None
        loss = negated(trace)
        if loss is None:
            return None
        return self.finding(
            "",
            f"the loss is a {loss.kind} with its sign turned round: to descend it took the "
            f"{loss.kind} from {first:.2g} to {late:.2g} in {count} steps",
            trace=trace,
            severity=Severity.ERROR,
            help="Turn the sign of the loss back: an optimizer descends.",
            exact=True,
            evidence={"first": first, "last": late, "noise": rough, "steps": count},
        )

    def _supervised(self, trace: Trace) -> bool:
        return bool(trace.facts.targets) and bool(trace.facts.losses)

    def _stays(self, trace: Trace, first: float, late: float, rough: float, steps: int) -> bool:
        """Whether the loss kept its value while the weights moved."""
        medians = median_updates(trace, 1, self.min_steps)
        if not medians or first <= 1e-3:
            return False
        travel = statistics.median(medians.values()) * steps
        clear = rough < self.max_noise * first  # in more noise a fall would not show
        return clear and travel >= self.min_travel and first - late < self.min_fall * first


def _given(trace: Trace) -> bool:
    """Whether it is one averaged loss on labels that say something."""
    seen = trace.facts.probes.get("targets") or {}
    one_class = seen.get("batches", 0) > 1 and seen.get("values") == 1
    return _plain(trace) and not (one_class and trace.facts.losses[0].kind in CLASSIFICATION)


def _plain(trace: Trace) -> bool:
    """Whether the loss is one averaged term: weights of several terms rise by schedule."""
    if len({loss.kind for loss in trace.facts.losses}) != 1:
        return False
    return not any(op.in_loss and op.kind == "add" for op in trace.graph)


def _chance(trace: Trace) -> float | None:
    """Return the averaged loss of a guess: ln K for K classes, the targets' variance for MSE."""
    seen = trace.facts.losses[0]
    if seen.reduction != "mean":
        return None
    if seen.kind in CLASSIFICATION and seen.classes and seen.classes > 1:
        return math.log(seen.classes)
    if seen.kind in ("bce", "bce_with_logits"):
        return math.log(2)
    return seen.target.std**2 if seen.kind == "mse" and seen.target is not None else None
