"""Updates that are a large part of the weights."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import noise, progress
from gradlint.rules._optimizer import NOT_GIVEN, given, maximizes, steps
from gradlint.rules._scale_free import divides_scale_out
from gradlint.rules._updates import matrices, median_updates
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class UpdateTooLarge(Rule):
    """Optimizer steps that change the weights too much.

    ## What it does
    Takes the true update-to-weight ratio ‖ΔW‖ / ‖W‖ of every weight matrix. Flags those whose
    median over at least `min_steps` steps from `first_step` on, counted from its own first one,
    is above `max_ratio`, or `max_falling_ratio` where the loss falls, unless the loss of its
    steps halved or, in a loop of several models, its steps are less than `min_share` of the
    loop's. Flags, too, a run in which half of the
    matrices were changed by more than their own size in one of the steps before, if the loss
    then did not fall or went above `max_rise` times its first value on the way, or the script
    raised. It is an error where the loss stayed above `min_progress` of its first value, a
    warning where it fell. Under `check` it warns, too, of a classification in which half of the
    matrices were changed by more than `max_early_ratio` of their size, the loss rose to more
    than `min_rise` times its first value in these steps, and ended no lower than that of a
    constant output, the logarithms of how often each class occurs. A note where half of them
    were changed by more than their own size, as the learning rate makes any gradient do, and
    the loss rose so, beyond its noise, and has not halved since.

    ## Why is this bad?
    The gradient describes the loss near the weights. A step of a tenth of their size leaves
    that neighborhood: the loss jumps, units die, and numbers overflow.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3.0)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ```

    ## When it is wrong
    Adam's first steps are of the size of the learning rate whatever the gradient, and weights
    that start near zero are replaced by them: both are left out; those behind a constant that
    makes up for it, as SIREN's, are not. A copy that is adapted to
    a task in a few steps and thrown away is moved far by them on purpose. Without an optimizer
    of the user's the rule is silent.

    ## References
    - CS231n notes, "Neural networks part 3": about 1e-3 is usual
    - `max_ratio` 0.1: on 30 healthy runs no matrix was above it from step 10 on, while a limit
      of 0.05 on single steps flagged 14 of them
    - `max_falling_ratio` is half as much more: a recurrent network from scratch (weights of 0.01,
      rate 1, clipped at 1: Zhang et al., "Dive into Deep Learning", section 9.5) is at 0.11
    - `max_early_ratio` and `min_rise` are our choice: of 213 healthy trainings of tests/zoo none
      ended above a constant output with more than 0.03. Of 200 small networks on parities, rare
      classes, noisy and random labels, at Adam's rates from 0.005 to 0.06, none that was above
      both limits and the constant output at step 40 was more than 0.02 below it at step 160
    - `min_share` is our choice: Reptile (Nichol, Achiam & Schulman 2018) on sinusoids adapts a
      copy in 16 steps at a rate of 0.02, each 10 to 20 % of its head, beside thousands of steps
    - Bottou, Curtis & Nocedal (2018), "Optimization methods for large-scale machine learning"
    """

    code: ClassVar = "GL401"
    name: ClassVar = "update-too-large"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("update_to_weight_ratio",)
    help: ClassVar = "Lower the learning rate by a factor of 10, or warm it up."
    stage: ClassVar = Stage.UPDATE

    max_ratio: float = 0.1
    max_falling_ratio: float = 0.15
    first_step: int = 11
    min_steps: int = 5
    min_progress: float = 0.9
    max_rise: float = 3.0
    min_rise: float = 1.1
    max_early_ratio: float = 0.5
    min_share: float = 0.05

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each matrix, or one for a run that was blown up at once."""
        seen = progress(trace)
        if maximizes(trace):  # a loss that rises by intent is GL609's
            return
        first, late = seen if seen is not None else (math.nan, math.nan)
        fell = late < self.min_progress * first
        loop = trace.facts.loop
        raised = seen is None and loop is not None and loop.ended == "exception"
        gone_on = seen is None and not raised
        severity = Severity.WARNING if fell or gone_on else Severity.ERROR
        ended = f"the loss went from {first:.2g} to {late:.2g}" if seen else "the loss is unknown"
        ended = "then the script raised" if raised else ended
        above = {
            path: ratio
            for path, ratio in median_updates(trace, self.first_step, self.min_steps).items()
            if ratio > (self.max_falling_ratio if fell else self.max_ratio)
            and not late <= 0.5 * first
            and not (seen is None and (_halved(trace, path) or self._passing(trace, path)))
        }
        for path, ratio in above.items():
            limit = self.max_falling_ratio if fell else self.max_ratio
            yield self.finding(
                trace.parameters[path].module,
                f"each step changes {path} by {ratio:.0%} of its size (limit {limit:.0%}); {ended}",
                trace=trace,
                severity=severity,
                parameter=path,
                evidence={
                    "ratio": ratio,
                    "limit": limit,
                    "loss": [first, late],
                    "rate_suffices": self._rate_suffices(trace, above, self.max_ratio),
                },
            )
        worst = max(trace.of("loss").at("").training.values, default=math.nan)
        thrown = worst > self.max_rise * abs(first)
        if above:
            return
        ended = f"{ended}, by way of {worst:.2g}" if thrown and worst > late else ended
        found = []
        if severity is Severity.ERROR or thrown:
            found = list(self._blown_up(trace, 1.0, severity, ended))
        yield from found or self._unlearned(trace, first, late) or self._thrown(trace, first, late)

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the steps were not those of the user's optimizer."""
        return NOT_GIVEN if not steps(trace) else super().skip_reason(trace)

    def _unlearned(self, trace: Trace, first: float, late: float) -> list[Finding]:
        """First steps after which the loss rose, and then fell no further than a constant's."""
        constant = trace.facts.probes.get("constant-output", {}).get("loss")
        worst = self._worst_early(trace)
        if constant is None or not late >= constant or not worst > self.min_rise * abs(first):
            return []
        ended = (
            f"the loss went from {first:.2g} by way of {worst:.2g} to {late:.2g}: a constant "
            f"output reaches {constant:.2g}"
        )
        return list(self._blown_up(trace, self.max_early_ratio, Severity.WARNING, ended))

    def _thrown(self, trace: Trace, first: float, late: float) -> list[Finding]:
        """First steps that are too long by their rate alone, after which the loss rose."""
        worst, loop = self._worst_early(trace), trace.facts.loop
        if loop is not None and loop.streams > 1:
            return []  # losses of several models rise by turns
        risen = worst > self.min_rise * abs(first) and worst > first + 6 * noise(trace)
        if not risen or not late > 0.5 * first:
            return []
        ended = f"the loss went from {first:.2g} by way of {worst:.2g} to {late:.2g}"
        found = self._blown_up(trace, 1.0, Severity.NOTE, ended)
        return [f for f in found if f.evidence["rate_suffices"]]

    def _worst_early(self, trace: Trace) -> float:
        """Return the highest loss of the first steps; not a number where there is none."""
        losses = trace.of("loss").at("").training
        return max((o.value for o in losses if o.step <= self.first_step), default=math.nan)

    def _passing(self, trace: Trace, path: str) -> bool:
        """Whether a matrix was trained for a small part of a loop only."""
        loop = trace.facts.loop
        own = [o.step for o in trace.of("update_to_weight_ratio").at(path).training.observations]
        if loop is None:
            return False
        return max(own) - min(own) + 1 < self.min_share * loop.steps

    def _blown_up(
        self, trace: Trace, limit: float, severity: Severity, ended: str
    ) -> Iterator[Finding]:
        """Steps before `first_step` that changed half of the matrices by more than `limit`."""
        updates = trace.of("update_to_weight_ratio").training
        largest = {
            p.path: max(
                (o.value for o in updates.at(p.path) if o.step < self.first_step), default=0.0
            )
            for p in matrices(trace)
            if p.in_optimizer is not False
        }
        replaced = {path: ratio for path, ratio in largest.items() if ratio > limit}
        if len(replaced) * 2 < len(largest) or not replaced:
            return
        path = max(replaced, key=lambda p: replaced[p])
        yield self.finding(
            trace.parameters[path].module,
            f"one of the first steps changed {path} by {replaced[path]:.2g} times its size "
            f"(limit {limit:g}), and {len(replaced)} of {len(largest)} matrices likewise; {ended}",
            trace=trace,
            severity=severity,
            parameter=path,
            evidence={
                "ratio": replaced[path],
                "limit": limit,
                "rate_suffices": self._rate_suffices(trace, replaced, limit),
            },
        )

    def _rate_suffices(self, trace: Trace, paths: Iterable[str], limit: float) -> bool:
        """Whether most of these weights would change as much under a gradient of ordinary size.

        An optimizer that divides the gradient's scale out changes every entry by its rate. For
        others the smallest ordinary gradient is a thousandth of the weight ([0] section 4.4.4).
        """
        optimizer = given(trace)
        if optimizer is None or not optimizer.learning_rates:
            return False
        rate = min(optimizer.learning_rates)
        if not divides_scale_out(optimizer):
            return 1e-3 * rate > self.max_ratio
        facts = [trace.parameters[path] for path in paths]
        norms = [trace.of("weight_norm").at(p.path) for p in facts]
        sizes = [n.initial.first if limit > self.max_ratio else n.training.median for n in norms]
        large = [rate * math.sqrt(p.numel) > limit * n for p, n in zip(facts, sizes, strict=True)]
        return 2 * sum(large) > len(large)


def _halved(trace: Trace, path: str) -> bool:
    """Whether the loss that one of several models is trained on halved."""
    losses = trace.of("stream_loss").training
    for stream in {o.site.path for o in losses.observations}:
        if path.startswith(f"{stream.partition(':')[0]}."):
            values = losses.at(stream).values
            late = statistics.median(values[-max(3, len(values) // 4) :])
            if len(values) >= 4 and late <= 0.5 * values[0]:
                return True
    return False
