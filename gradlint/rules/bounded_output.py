"""A last activation that cannot reach the targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import POOLS, SHAPES, Operation
from gradlint.rules._losses import REGRESSION, is_shape, loss_groups, predictions
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, TensorFacts, Trace

_RANGES = {
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "softmax": (0.0, 1.0),
    "log_softmax": (-math.inf, 0.0),
    "logsigmoid": (-math.inf, 0.0),
    "softplus": (0.0, math.inf),
    "gelu": (-0.17, math.inf),
    "silu": (-0.2785, math.inf),
    "exp": (0.0, math.inf),
}
_SLACK = 1e-3


@dataclass(frozen=True)
class BoundedOutput(Rule):
    """A last activation whose range does not hold the targets.

    ## What it does
    Finds the last operation in front of a regression loss (MSE, L1, smooth L1, Huber) and
    compares its range with the targets': a warning where the targets leave it by more than
    `warning_excess` of their own standard deviation, an error from `error_excess` where the
    bound is within `bulk` standard deviations of their mean (a single outlier is further
    out). In front of a classification loss it flags a ReLU or a tanh on the logits.

    ## Why is this bad?
    No training reaches a target outside the range of the last function. A ReLU there also
    has no gradient wherever it gives 0, so that such outputs never recover.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), nn.ReLU())
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    x = torch.randn(64, 8)
    batch = (x, x.sum(dim=1, keepdim=True))
    loss_fn = nn.MSELoss()
    ```

    ## When it is wrong
    A bound that holds the targets is good practice: ReLU for counts, sigmoid for pixels in
    0…1, tanh for pixels in −1…1; a scale or a shift behind it (``10 * sigmoid(x)``) moves the
    bound, and the rule says nothing. Nor of targets that leave the range by a little noise (a
    sigmoid that learns a clean image from noisy ones); by much of it they are flagged, for
    nothing tells noise from signal. Networks that pool ReLU'd class maps
    (SqueezeNet, Network in Network) are not meant.

    ## References
    - Reference [0], "Common pitfalls", 2: ReLU on the output of a regression
    - The limits are our choice: of 96 normally distributed targets the lowest is at −2.5
      standard deviations, so a bound exceeded by 0.25 cuts off 1 %, by 1 cuts off 7 %
    - `min_lost`: of pixels in 0…1 with noise of 0.1 added 0.02 of the variance is out of a
      sigmoid's reach, of 0.2 it is 0.07; of standardized pixels 0.1 is out of a tanh's and 0.44
      out of a sigmoid's reach, of a normal distribution 0.15 and 0.58, 0.5 out of a ReLU's
    """

    code: ClassVar = "GL603"
    name: ClassVar = "bounded-output"
    severity: ClassVar = Severity.ERROR
    measure: ClassVar = "excess"
    help: ClassVar = "Remove the last activation, or bring the targets into its range."
    stage: ClassVar = Stage.WIRING

    error_excess: float = 1.0
    warning_excess: float = 0.25
    bulk: float = 2.0
    min_lost: float = 0.09

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each loss behind a bound its targets leave."""
        for group in loss_groups(trace):
            if group[0].kind in REGRESSION:
                yield from self._regression(trace, group)
            else:
                yield from self._classification(trace, group)

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the targets are not the user's, or no loss was seen."""
        if trace.facts.synthesized:
            return "the batch was made up: its targets say nothing"
        return None if trace.facts.losses else "no loss with known targets was seen"

    def _regression(self, trace: Trace, group: list[LossFacts]) -> Iterator[Finding]:
        passed = (SHAPES | POOLS) - {"mask", "sum", "embedding"}
        last = predictions(trace, group[0], lambda o: o.kind in passed)
        ranges = [r for op in last if (r := _range(op)) is not None]
        if not ranges or len(ranges) < len(last):
            return
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
        pairs = [p for seen in group if (p := _target(seen, low, high)) is not None]
        if len(pairs) * 2 <= len(group):
            return
        excess = statistics.median(_excess(t, low, high) / max(t.std, 1e-12) for t in pairs)
        lost = [share for t in pairs if (share := _lost(t, low, high)) is not None]
        if excess <= self.warning_excess or (lost and statistics.median(lost) < self.min_lost):
            return
        op, target = last[0], pairs[0]
        inside = min(target.mean - low, high - target.mean) / max(target.std, 1e-12)
        certain = excess > self.error_excess and inside < self.bulk
        yield self.finding(
            op.module,
            f"{op.kind} gives values in {_text(low, high)}, the targets reach from "
            f"{target.minimum:.2g} to {target.maximum:.2g}",
            trace=trace,
            severity=Severity.ERROR if certain else Severity.WARNING,
            evidence={
                "activation": op.kind,
                "target_minimum": target.minimum,
                "target_maximum": target.maximum,
                "excess": excess,
                "limit": self.warning_excess,
            },
        )

    def _classification(self, trace: Trace, group: list[LossFacts]) -> Iterator[Finding]:
        loss = group[0]
        if loss.kind not in ("cross_entropy", "bce_with_logits"):
            return
        last = predictions(trace, loss, is_shape)
        kinds = {op.kind for op in last}
        if len(kinds) != 1 or not kinds & {"relu", "tanh"}:
            return
        op = last[0]
        binary = loss.kind == "bce_with_logits"
        if op.kind == "relu" and binary:
            says = "relu on the logit of BCEWithLogits: no probability below 0.50 can be said"
        elif op.kind == "relu":
            says = "relu on the logits of cross-entropy: where it gives 0 a logit has no gradient"
        else:
            says = f"tanh on the logits of {loss.kind}: they stay in -1…1"
        wrong = op.kind == "relu" and binary
        yield self.finding(
            op.module,
            says,
            trace=trace,
            severity=Severity.ERROR if wrong else Severity.WARNING,
            help="Remove the last activation: the loss takes unbounded logits.",
            evidence={"activation": op.kind, "loss": loss.kind},
        )


def _range(op: Operation) -> tuple[float, float] | None:
    if op.kind in ("hardtanh", "clamp"):
        bounds = op.attributes.get("min", -math.inf), op.attributes.get("max", math.inf)
        return None if bounds == (-math.inf, math.inf) else (float(bounds[0]), float(bounds[1]))
    return _RANGES.get(op.kind)


def _excess(values: TensorFacts, low: float, high: float) -> float:
    return max(low - values.minimum, values.maximum - high, 0.0)


def _lost(values: TensorFacts, low: float, high: float) -> float | None:
    """Share of the variance of `values` that stays where an output in a range is nearest."""
    if not values.quantiles or values.std == 0:
        return None
    squares = [(q - min(max(q, low), high)) ** 2 for q in values.quantiles]
    return math.fsum(squares) / len(squares) / values.std**2


def _target(seen: LossFacts, low: float, high: float) -> TensorFacts | None:
    """Return which side of a (symmetric) loss holds the targets: the one out of the range."""
    sides = (seen.target, seen.output)
    if any(side is None or side.non_finite for side in sides):
        return None
    out = [s for s in sides if s is not None and _excess(s, low, high) > _SLACK]
    return out[0] if len(out) == 1 else None


def _text(low: float, high: float) -> str:
    if high == math.inf:
        return f"{low:.2g} and above"
    return f"{high:.2g} and below" if low == -math.inf else f"{low:.2g}…{high:.2g}"
