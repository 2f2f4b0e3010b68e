"""Weight decay that is stronger than the gradient."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import progress
from gradlint.rules._optimizer import NOT_GIVEN, given, rescales
from gradlint.rules._updates import USUAL_RATE, matrices, tables
from gradlint.rules.base import Rule
from gradlint.trace import OptimizerFacts, ParameterFacts, Trace

HELP_OF_TABLES = (
    "Lower weight_decay by 1000: to 1e-5 under Adam, which adds it to the gradient; or use AdamW."
)


@dataclass(frozen=True)
class WeightDecayDominates(Rule):
    """Weight decay that removes the weights faster than the gradient can build them.

    ## What it does
    Takes the time, in steps, in which decay alone would take most of a weight away:
    1 / (learning rate · weight decay), with momentum counted in. Flags a run in which it is
    below `min_lifetime` steps and most weight matrices did shrink, to less than `max_rest` of
    their norm; below a tenth of `min_lifetime`, where decay alone changes a weight by more than
    a tenth a step, and would dominate at a usual rate as well, weights that started small need
    not have shrunk. Under an optimizer that rescales decay together with the gradient (Adam with
    weight_decay) it compares the decay term with the gradient instead. An error where the
    loss stayed above `min_progress` of its first value. At least `min_steps` are needed. A
    model of embeddings alone is flagged where the loss stayed there and the rows in use of
    each table have less than `max_rest_of_penalty` of their norm. A penalty in the loss on
    most weight matrices is flagged where it took the median of them below
    `max_rest_of_penalty`; below `max_rest` where the gradient of most of them is the
    penalty's alone from the start: the same multiple of the weight, or of one size in every entry.

    ## Why is this bad?
    A weight then remembers the last few dozen batches only, and the matrices shrink until
    the output is a constant: the network unlearns as fast as it learns.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=5.0)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=5e-4)
    ```

    ## When it is wrong
    Weights that start far too large shrink for their own good; their decay has a long
    lifetime and is not meant. Without an optimizer of the user's the rule is silent.

    ## References
    - Wang & Aitchison (2024), "How to set AdamW's weight decay as you scale model and dataset
      size": the lifetime 1/(ηλ) should be of the order of epochs
    - Usual settings are far away: SGD at 0.1 with momentum 0.9 and decay 5e-4 lives 2000
      steps, AdamW at 1e-3 and 0.01 100 000, grokking's 1e-3 and 1.0 1000. 100 is our choice.
    - `max_rest_of_penalty`: two layers at a twentieth of their size hand on 1/400 of the signal
    - Of factorizations of 400 users by 300 items, those with 1e-5 and 1e-4 under Adam found 0.8
      of what was liked and their tables grew, those with 1e-2 and 0.1 found what chance finds
      and kept 0.001 of theirs
    - `max_deviation` 0.02: an orthogonal gradient of a fifth of the penalty's makes as much; of
      penalties without a factor it is 2e-5 to 7e-3 in 40 steps. `min_share` is the upper end of
      the gradient ratios of reference [0], section 4.4.4
    - Xie & Li (2024), "Implicit bias of AdamW: ℓ∞-norm constrained optimization": no weight
      gets larger than 1/λ, whatever the rate; a tenth a step is the limit of update-too-large
    """

    code: ClassVar = "GL408"
    name: ClassVar = "weight-decay-dominates"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("weight_norm",)
    stage: ClassVar = Stage.UPDATE
    help: ClassVar = "Lower weight_decay: 5e-4 is usual for SGD, 0.01 to 0.1 for AdamW."

    min_lifetime: float = 100.0
    max_rest: float = 0.7
    max_rest_of_penalty: float = 0.05
    max_deviation: float = 0.02
    min_share: float = 0.1
    min_progress: float = 0.9
    min_steps: int = 10

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no decay to judge, or None."""
        optimizer = given(trace)
        if optimizer is None:
            return NOT_GIVEN
        decays = any(float(group.get("weight_decay", 0)) > 0 for group in optimizer.groups)
        if not decays and not _penalized(trace):
            return "the optimizer decays no weights"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        optimizer = given(trace)
        rests = {p.path: r for p in matrices(trace) if (r := self._rest(trace, p)) is not None}
        if optimizer is None:
            return
        if not rests:
            yield from self._of_tables(trace, optimizer)
            return
        rest = statistics.median(rests.values())
        group = max(optimizer.groups, key=lambda g: float(g.get("weight_decay", 0)))
        decay, rate = float(group.get("weight_decay", 0)), _rate(trace, group)
        coupled = rescales(trace) and not _decoupled(optimizer.kind, group)
        lifetime = _lifetime(rate, decay, float(group.get("momentum", 0) or 0))
        if _penalized(trace) and not lifetime < self.min_lifetime:
            alone = self._deviation(trace, list(rests)) if rest < self.max_rest else None
            if rest < self.max_rest_of_penalty or alone is not None:
                yield self._by_penalty(trace, rest, alone)
                return
        at_once = not coupled and lifetime < self.min_lifetime / 10
        if not rest < self.max_rest and not (
            at_once and _lifetime(USUAL_RATE, decay, 0.0) < self.min_lifetime
        ):
            return
        if coupled:
            share = _gradient_share(trace, list(rests))
            if share is None or not decay > share:
                return
            says = f"decay adds {decay:.2g} of each weight to a gradient of {share:.2g} of it"
        else:
            if not lifetime < self.min_lifetime:
                return
            says = self._in_steps(lifetime)
        stuck = self._stuck(trace)
        steps = max(trace.of("weight_norm").training.steps)
        yield self.finding(
            "",
            f"{says}: the median weight matrix has {rest:.2g} of its norm after {steps} steps",
            trace=trace,
            severity=Severity.ERROR if stuck else Severity.WARNING,
            evidence={"weight_decay": decay, "learning_rate": rate, "rest": rest},
        )

    def _stuck(self, trace: Trace) -> bool:
        seen = progress(trace)
        return seen is not None and not seen[1] < self.min_progress * seen[0]

    def _of_tables(self, trace: Trace, optimizer: OptimizerFacts) -> Iterator[Finding]:
        """Yield a finding where decay took the rows in use of all embeddings away.

        Rows that no batch reads shrink to nothing in healthy runs: those that a batch reads
        hold no more of the norm than the table has left.
        """
        group = min(optimizer.groups, key=lambda g: float(g.get("weight_decay", 0)))
        decay, rate = float(group.get("weight_decay", 0)), _rate(trace, group)
        rests: list[float] = []
        shares: list[float] = []
        for path, used in tables(trace).items():
            rest = self._rest(trace, trace.parameters[path])
            ratio = trace.of("gradient_ratio").at(path).training.median
            if rest is not None:
                rests.append(rest / math.sqrt(used))
                shares.append(ratio / math.sqrt(used))
        if not rests or not max(rests) < self.max_rest_of_penalty or not self._stuck(trace):
            return
        says = f"decay adds {decay:.2g} of each weight to a gradient of {max(shares):.2g} of it"
        if rescales(trace) and not _decoupled(optimizer.kind, group):
            if not all(decay > share for share in shares):
                return
        else:
            lifetime = _lifetime(rate, decay, float(group.get("momentum", 0) or 0))
            if not lifetime < self.min_lifetime:
                return
            says = self._in_steps(lifetime)
        steps = max(trace.of("weight_norm").training.steps)
        yield self.finding(
            "",
            f"{says}: the rows in use of every embedding that started above zero have "
            f"{max(rests):.2g} of their norm at most after {steps} steps (limit "
            f"{self.max_rest_of_penalty:.2g})",
            trace=trace,
            severity=Severity.ERROR,
            help=HELP_OF_TABLES,
            evidence={"weight_decay": decay, "learning_rate": rate, "rest": max(rests)},
        )

    def _in_steps(self, lifetime: float) -> str:
        says = f"decay alone takes a weight away in {lifetime:.2g} steps"
        return f"{says} (limit {self.min_lifetime:.0f})"

    def _by_penalty(self, trace: Trace, rest: float, alone: float | None) -> Finding:
        steps = max(trace.of("weight_norm").training.steps)
        limit, says = self.max_rest_of_penalty, "the loss holds a penalty on the weights themselves"
        if alone is not None:
            limit = self.max_rest
            says += (
                f", and most gradients are the penalty's alone to within {alone:.2g} of their size"
            )
        return self.finding(
            "",
            f"{says}: the median weight matrix has {rest:.2g} of its norm after {steps} steps "
            f"(limit {limit:.2g})",
            trace=trace,
            help="Lower the factor of the penalty by 100, or average it over the weights.",
            evidence={"weight_decay": 0.0, "rest": rest},
        )

    def _deviation(self, trace: Trace, paths: list[str]) -> float | None:
        """Return how far the gradients of most weights are from those of a penalty, at most.

        None where they are not: that of a sum of squares is a multiple of the weight, that of a
        sum of sizes has one size in every entry. No data's gradient is either, at the first
        `min_steps` steps looked at; of weights near zero, later on, both change their sign.
        """
        found = []
        for path in paths:
            ratios, norms = (
                trace.of(metric).at(path).training.values[: self.min_steps]
                for metric in ("gradient_ratio", "gradient_norm")
            )
            if len(ratios) < self.min_steps or statistics.median(ratios) < self.min_share:
                continue
            found.append(min(_spread(ratios), _spread(norms)))
        close = [spread for spread in found if spread <= self.max_deviation]
        return max(close) if len(close) * 2 > len(paths) else None

    def _rest(self, trace: Trace, parameter: ParameterFacts) -> float | None:
        """Return the last norm of a weight over its first, or None."""
        norms = trace.of("weight_norm").at(parameter.path)
        start = norms.initial.first
        if len(norms.training) < self.min_steps or not start > 0:
            return None
        return norms.training.last / start


def _spread(values: Sequence[float]) -> float:
    """Return how far values are from their median, as a share of it, at most."""
    middle = statistics.median(values)
    return max(abs(value / middle - 1) for value in values) if middle > 0 else math.inf


def _penalized(trace: Trace) -> bool:
    """Whether an operation of the loss reads most weight matrices itself."""
    wide = {p.path for p in matrices(trace)}
    read = (wide.intersection(op.parameters) for op in trace.graph if op.in_loss)
    return bool(wide) and max(map(len, read), default=0) * 2 > len(wide)


_DECOUPLED = ("adamw", "lion", "muon", "sophia")
"""Optimizers whose decay acts on the weights, beside the update, by their papers' definition."""


def _decoupled(kind: str, group: Mapping[str, Any]) -> bool:
    named = any(name in kind.lower() for name in _DECOUPLED)
    return named or bool(group.get("decoupled_weight_decay"))


def _rate(trace: Trace, group: Mapping[str, Any]) -> float:
    """Return the median learning rate of the watched steps."""
    rates = trace.of("learning_rate").at("").training.values
    return statistics.median(rates) if rates else float(group.get("lr", 0))


def _lifetime(rate: float, decay: float, momentum: float) -> float:
    """Return in how many steps decay takes a weight to 1/e of its size."""
    strength = rate * decay / max(1 - momentum, 1e-3)
    return 1 / strength if strength > 0 else math.inf


def _gradient_share(trace: Trace, paths: list[str]) -> float | None:
    """Return the median of the gradient over the weight, in norms."""
    ratios = [
        trace.of("gradient_ratio").at(path).training.median
        for path in paths
        if len(trace.of("gradient_ratio").at(path).training)
    ]
    return statistics.median(ratios) if ratios else None
