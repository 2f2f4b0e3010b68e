"""Updates that do not move the weights."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import noise, progress
from gradlint.rules._optimizer import NOT_GIVEN, given, steps
from gradlint.rules._scale_free import divides_scale_out
from gradlint.rules._updates import (
    USUAL_RATE,
    below_rounding,
    expected_update,
    median_updates,
    warming_up,
)
from gradlint.rules.base import Rule
from gradlint.trace import OptimizerFacts, Trace

_ADADELTA = "Use lr=1.0: Adadelta finds the size of its steps itself, and a rate scales them down."


@dataclass(frozen=True)
class UpdateTooSmall(Rule):
    """Optimizer steps that hardly change any weight.

    ## What it does
    Takes the true update-to-weight ratio ‖ΔW‖ / ‖W‖ of every weight matrix. Flags a run in
    which the largest of their medians over at least `min_steps` steps is below `min_ratio`
    while there is a gradient and the loss keeps its first value within a tenth, or within its
    noise from step to step. Where no matrix
    changes at all, learning rate and gradient have to say that rounding undoes the updates. Of
    a watched loop `min_looked_at` steps suffice, taken to the loop's highest learning rate; one
    that ran to its end over `min_whole` steps or more is flagged as well where they all together
    moved no matrix by `min_travel` of its size, and one in which every gradient that backward
    left was exactly zero. Where the learning rates of an optimizer differ by `min_apart` or more,
    fresh matrices that hold most of the weights are flagged alone, if the highest rate would move
    them. Adadelta at a hundredth of its own rate of 1 is flagged below `min_ratio_adadelta`.

    ## Why is this bad?
    At 1e-6 a step it takes a million steps to replace a weight. In half precision such
    updates are rounded away altogether.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    ## When it is wrong
    The first steps of a warm-up are small on purpose: a learning rate that is still rising
    silences the rule, and so does a loss at its floor or on its way there. Weights that were
    loaded need little: how far they travel is not judged.

    ## References
    - CS231n notes, "Neural networks part 3": about 1e-3 is usual
    - `min_ratio` 1e-6: on 30 healthy runs no matrix was below 1e-4 from step 10 on; two decades
      are left for fine-tuning rates
    - `min_apart` 1e3: rates that differ on purpose do by 2.6 (Howard & Ruder, 2018) or 0.65 to
      0.95 a layer (Clark et al., 2020), 1/1024 by width (Yang et al., 2022)
    - Zeiler (2012), "ADADELTA", has no learning rate: in torch it is 1. Digits are learned by half
      after 14 steps at 1, 100 at 0.1, 990 at 0.01 (updates of 4e-4), and in 2000 steps not at
      0.001 (4e-5); nobody fine-tunes with it
    - `min_travel` 1e-2: a fifth of what loss-not-decreasing asks for before it says that weights
      moved and nothing came of it; wide networks that learn by less ("lazy training", Chizat et
      al., 2019) show a loss that falls
    """

    code: ClassVar = "GL402"
    name: ClassVar = "update-too-small"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("update_to_weight_ratio",)
    help: ClassVar = "Raise the learning rate; look at what the schedule gives at the first steps."
    stage: ClassVar = Stage.UPDATE

    min_ratio: float = 1e-6
    min_steps: int = 10
    min_looked_at: int = 3
    min_whole: int = 100
    min_travel: float = 1e-2
    min_apart: float = 1e3
    min_ratio_adadelta: float = 1e-4

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if no matrix moves."""
        seen = progress(trace)
        if seen is None or warming_up(trace):
            return
        first, late = seen
        norms = trace.of("total_gradient_norm").at("").training
        if self._no_gradient(trace):
            yield self._without_gradient(trace)
            return
        fell = late < 0.9 * first and first - late > 3 * noise(trace)
        if fell or not 0 < norms.median < math.inf or abs(first) < 1e-6:
            return
        needed, factor = self._at_the_highest_rate(trace)
        medians = median_updates(trace, 1, needed)
        if not medians:
            return
        path = max(medians, key=lambda p: medians[p])
        travel = self._travel(trace, medians[path] * factor)
        least, usual = self._least(trace)
        if medians[path] * factor >= least and not travel < self.min_travel:
            yield from self._held_back(trace, {p: m * factor for p, m in medians.items()}, late)
            return
        rate = trace.of("learning_rate").at("").training.median
        ratio = medians[path]
        if ratio == 0 and rate > 0:
            expected = _rounded_away(trace, list(medians))
            if expected is None:
                return  # nothing moves at any rate: not the rate's fault
            ratio = expected
        shown = "" if math.isnan(rate) else f" at a learning rate of {rate:.2g}"
        limit = f" (limit {least:.2g})"
        if ratio * factor >= least:
            limit = f", {travel:.2g} in the whole run (limit {self.min_travel:.2g})"
        yield self.finding(
            "",
            f"no weight matrix changes by more than {ratio:.2g} of its size a step{shown}"
            f"{limit}; the loss stays at {late:.2g}",
            trace=trace,
            help=_ADADELTA if usual == 1 else self.help,
            evidence={
                "ratio": ratio,
                "limit": least,
                "learning_rate": None if math.isnan(rate) else rate,
                "rate_suffices": rate * least <= ratio * usual,
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the steps were not those of the user's optimizer."""
        return NOT_GIVEN if not steps(trace) else super().skip_reason(trace)

    def _least(self, trace: Trace) -> tuple[float, float]:
        """Return the smallest update there should be, and the optimizer's usual rate."""
        optimizer = given(trace)
        if optimizer is None or optimizer.kind != "Adadelta" or trace.facts.pretrained:
            return self.min_ratio, USUAL_RATE
        low = max(optimizer.learning_rates, default=1.0) <= 0.01
        return (self.min_ratio_adadelta, 1.0) if low else (self.min_ratio, USUAL_RATE)

    def _held_back(
        self, trace: Trace, ratios: Mapping[str, float], loss: float
    ) -> Iterator[Finding]:
        """Find most of the weights standing still at rates far below the optimizer's highest."""
        optimizer = given(trace)
        if optimizer is None or trace.facts.pretrained:
            return
        rates = [rate for rate in optimizer.learning_rates if rate > 0]
        low, high = min(rates, default=math.inf), max(rates, default=0.0)
        still = [
            trace.parameters[path]
            for path, ratio in ratios.items()
            if ratio < self.min_ratio
            and trace.parameters[path].in_optimizer is not False
            and _at_rate(trace, path, high, optimizer) >= 100 * self.min_ratio
        ]
        every = sum(trace.parameters[path].numel for path in ratios)
        share = sum(p.numel for p in still) / every
        if high < self.min_apart * low or share <= 0.5:
            return
        yield self.finding(
            "",
            f"learning rates run from {low:.2g} to {high:.2g}: {len(still)} of {len(ratios)} "
            f"weight matrices, {share:.0%} of the weights, change by less than "
            f"{self.min_ratio:.2g} of their size a step; the loss stays at {loss:.2g}",
            trace=trace,
            help="Give fresh layers one learning rate; let it fall by 0.65 to 0.95 a layer only "
            "where weights were trained before.",
            evidence={"lowest_rate": low, "highest_rate": high, "share": share},
        )

    def _travel(self, trace: Trace, ratio: float) -> float:
        """Return how far a run that is over could take a matrix, in its own size."""
        loop = trace.facts.loop
        if loop is None or loop.ended or loop.steps < self.min_whole or trace.facts.pretrained:
            return math.inf
        return ratio * loop.steps

    def _no_gradient(self, trace: Trace) -> bool:
        """Whether every backward left nothing but zeros, though the loss was none."""
        norms = trace.of("backward_gradient_norm").at("").training.values
        losses = trace.of("loss").at("").training.values
        return len(norms) >= self.min_looked_at and not any(norms) and any(losses)

    def _without_gradient(self, trace: Trace) -> Finding:
        seen = len(trace.of("backward_gradient_norm").at("").training)
        return self.finding(
            "",
            f"the gradient of every parameter is exactly 0 in all {seen} steps looked at: no "
            "weight moves",
            trace=trace,
            help="Look for what cancels: a difference or a ratio of one output and itself (old "
            "log-probabilities want no_grad), a constant loss, a function that is flat everywhere.",
            evidence={"ratio": 0.0, "limit": self.min_ratio, "learning_rate": None},
        )

    def _at_the_highest_rate(self, trace: Trace) -> tuple[int, float]:
        """Return at how many steps updates must be known, and a factor they are taken times.

        Of a loop's steps few are looked at, but the rate is known at all of them, and updates
        are proportional to it: those at the highest rate follow from those that were seen.
        """
        loop = trace.facts.loop
        if loop is None or loop.steps < self.min_steps:
            return self.min_steps, 1.0
        rates = {o.step: o.value for o in trace.of("learning_rate").at("").training}
        looked = {o.step for o in trace.of("update_to_weight_ratio").training}
        then = [rate for step, rate in rates.items() if step in looked and rate > 0]
        if len(looked) >= self.min_steps or not then:
            return self.min_steps, 1.0
        return self.min_looked_at, max(rates.values()) / statistics.median(then)


def _at_rate(trace: Trace, path: str, rate: float, optimizer: OptimizerFacts) -> float:
    """Return the update of a matrix, over its size, that a learning rate would make."""
    if divides_scale_out(optimizer):
        return rate
    pushed = trace.of("gradient_ratio").at(path).training.median
    return rate * pushed if math.isfinite(pushed) else 0.0


def _rounded_away(trace: Trace, paths: Sequence[str]) -> float | None:
    """Return the largest update there would be of single-precision weights without rounding.

    None where one of them has a larger one, or one that is not known. Half precision is
    another rule's.
    """
    facts = [p for p in map(trace.parameters.__getitem__, paths) if p.in_optimizer is not False]
    if any(p.dtype in ("float16", "bfloat16") or not below_rounding(trace, p) for p in facts):
        return None
    expected = [expected_update(trace, p) for p in facts]
    return max((e for e in expected if e is not None), default=None)
