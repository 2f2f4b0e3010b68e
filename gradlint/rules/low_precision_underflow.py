"""Gradients too small for the 16-bit format they are computed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Site, Trace


@dataclass(frozen=True)
class LowPrecisionUnderflow(Rule):
    """Layers whose gradient is at the lower end of float16 and mostly flushed to zero.

    ## What it does
    Measures which share of a 16-bit gradient's squared norm is held by entries of two bits
    or less, the last before zero. Flags layers in which it is above `max_share` on the median
    observed step. At least `min_observations` are needed; with a GradScaler they are taken
    from the second half of the run, after its search for a scale. A model in float16 whose
    gradients are all exactly zero, at a loss that is not, has lost everything.

    ## Why is this bad?
    float16 ends at 6e-8. Where most of what is left is one or two times that, a quarter of
    the gradient or more has become zero, and the rest is rounded to a third of its size: the
    layers behind it learn from what the format left over, or from nothing.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64)).half()
    batch = (torch.randn(256, 16).half(), torch.randn(256, 64).half())
    loss_fn = lambda out, y: 1e-4 * F.mse_loss(out.float(), y.float())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64)).bfloat16()
    batch = (torch.randn(256, 16).bfloat16(), torch.randn(256, 64).bfloat16())
    loss_fn = lambda out, y: 1e-4 * F.mse_loss(out.float(), y.float())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    ## When it is wrong
    Zeros are not counted, since rectifiers, pooling, dropout and padding make them; nor are
    small entries beside large ones, as a softmax over many classes has. bfloat16 has the
    range of float32 and does not get there. `check` with a precision of fp16 runs without
    the GradScaler that a training loop has: there it is a note.

    ## References
    - Micikevicius et al. (2018), "Mixed precision training", section 3.2: networks diverge
      without loss scaling where gradients below 2^-24 matter
    - `max_share`: of a normally distributed gradient it is passed where 25 % of the entries
      have become zero (tests/metrics/test_underflow_share.py); our choice
    """

    code: ClassVar = "GL502"
    name: ClassVar = "low-precision-underflow"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("underflow_share", "gradient_underflow_share")
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = "Scale the loss with torch.amp.GradScaler, or train in bfloat16."

    max_share: float = 0.5
    min_observations: int = 3

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each layer whose gradient underflows."""
        if self._all_lost(trace):
            steps = len(trace.of("total_gradient_norm").training)
            yield self.finding(
                "",
                f"every gradient of the float16 model is exactly zero on all {steps} observed "
                "steps, at a loss that is not",
                trace=trace,
                evidence={"total_gradient_norm": 0.0, "steps": steps},
            )
            return
        known: set[str | None] = set()
        for metric in self.metrics:
            seen = trace.of(metric)
            for site in seen.sites:
                if site.module in known or not _is_leaf(trace, site):
                    continue
                found = self._at(trace, seen.at(site), site)
                if found is not None:
                    known.add(site.module)
                    yield found

    def _all_lost(self, trace: Trace) -> bool:
        trained = [p for p in trace.parameters.values() if p.requires_grad]
        norms = trace.of("total_gradient_norm").at("").training
        losses = trace.of("loss").at("").training
        return (
            bool(trained)
            and all(p.dtype == "float16" and p.gradient == "present" for p in trained)
            and len(norms) >= self.min_observations
            and not any(norms.values)
            and len(losses) > 0
            and all(losses.values)
        )

    def _at(self, trace: Trace, seen: Trace, site: Site) -> Finding | None:
        scaler = trace.facts.loop.scaler if trace.facts.loop is not None else None
        watched = seen.training if len(seen.training) else seen.initial
        if scaler is not None:
            last = max(trace.training.steps, default=0)
            watched = seen.since(last // 2 + 1)
        if len(watched) < self.min_observations or not watched.median > self.max_share:
            return None
        ours = trace.facts.loop is None and not _in_half(trace)
        scaled = f" at a loss scale of {scaler.last_scale:g}" if scaler is not None else ""
        return self.finding(
            site,
            f"{watched.median:.0%} of the gradient's squared norm is in entries of two bits or "
            f"less, next to the format's zero{scaled} (limit {self.max_share:.0%})",
            severity=Severity.NOTE if ours else Severity.WARNING,
            parameter=site.path if site.kind == "parameter" else None,
            evidence={"underflow_share": watched.median, "limit": self.max_share},
        )


def _is_leaf(trace: Trace, site: Site) -> bool:
    facts = trace.modules.get(site.module)
    return facts is None or facts.leaf


def _in_half(trace: Trace) -> bool:
    """Whether the model itself, not autocast, computes in 16 bits."""
    return any(p.dtype == "float16" for p in trace.parameters.values())
