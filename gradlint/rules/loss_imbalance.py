"""A term of a composite loss that moves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class LossImbalance(Rule):
    """One term of a composite loss outweighs another on the weights that they share.

    ## What it does
    Takes apart a loss that is a sum, after the watched training, and measures each term's
    gradient on the parameters that two terms share. Where one is more than `max_ratio` times
    the other, though that has no smaller factor, or itself a factor of `min_boost`, both
    cases are tried on copies: the shared parameters trained for 40 steps on the small term
    alone, and on all terms. Speaks if alone the small term falls by `min_fall` or more, and
    together by less than a tenth of that: a warning above `warning_ratio`, a note below.

    ## Why is this bad?
    The shared layers learn for one task only. The other's loss is added, logged, and without
    effect: its gradient is lost in the rounding and the noise of the first.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
            self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

        def forward(self, x):
            h = self.body(x)
            return self.price(h), self.kind(h)

    model = Net()
    x = torch.randn(128, 8)
    batch = (x, (2e5 + 1e5 * x.sum(1, keepdim=True), x[:, :3].argmax(1)))
    loss_fn = lambda out, y: F.mse_loss(out[0], y[0]) + F.cross_entropy(out[1], y[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
            self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

        def forward(self, x):
            h = self.body(x)
            return self.price(h), self.kind(h)

    model = Net()
    x = torch.randn(128, 8)
    batch = (x, (x.sum(1, keepdim=True), x[:, :3].argmax(1)))
    loss_fn = lambda out, y: F.mse_loss(out[0], y[0]) + F.cross_entropy(out[1], y[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ```

    ## When it is wrong
    A term that is meant to be small says so by its factor (weight decay, an entropy bonus, the
    balance of experts): it is silent, as are a term without any gradient (a warm-up from zero,
    a margin that is met) and one that is at its minimum already. Made-up batches prove nothing
    of scales.

    ## References
    - Chen et al. (2018), "GradNorm: gradient normalization for adaptive loss balancing in deep
      multitask networks", section 3: gradients of tasks on shared weights should be of a size
    - `max_ratio`: of the composite losses in tests/zoo without a factor the ratio is at most
      70 after 40 steps; `warning_ratio` is our choice
    """

    code: ClassVar = "GL614"
    name: ClassVar = "loss-imbalance"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.LOSS
    help: ClassVar = (
        "Standardize targets, use the same reduction in all terms, or weigh the terms so that "
        "their gradients are of one size."
    )

    max_ratio: float = 1e3
    warning_ratio: float = 1e4
    min_boost: float = 10.0
    min_fall: float = 0.05

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there is no sum, or nobody's."""
        if "loss-terms" not in trace.facts.probes:
            return "the loss is no sum of terms that share parameters, or was not taken apart"
        if trace.facts.synthesized:
            return "the batch was made up: its scale proves nothing"
        return None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding: of the two terms that are furthest apart."""
        seen = trace.facts.probes.get("loss-terms")
        if seen is None or not seen["ratio"] > self.max_ratio:
            return
        if seen["factor"] < 1 and seen["boost"] < self.min_boost:
            return  # meant to be small
        alone, together = seen["alone"], seen["together"]
        if alone is None or together is None:
            return
        if alone < self.min_fall or together > alone / 10:
            return
        ratio = float(seen["ratio"])
        yield self.finding(
            "",
            f"of {seen['terms']} terms of the loss {seen['large']} has {ratio:.2g} times the "
            f"gradient of {seen['small']} on the weights they share (limit {self.max_ratio:g}): "
            f"in 40 steps {seen['small']} falls by {alone:.2g} of its value alone, and "
            f"{_changes(together)} beside it",
            trace=trace,
            severity=Severity.WARNING if ratio > self.warning_ratio else Severity.NOTE,
            evidence={
                "ratio": ratio,
                "limit": self.max_ratio,
                "fall_alone": alone,
                "fall_together": together,
            },
        )


def _changes(fall: float) -> str:
    return f"by {fall:.2g}" if fall >= 0 else f"rises by {-fall:.2g}"
