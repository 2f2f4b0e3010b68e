"""Gradients that grow from layer to layer, or from step to step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._gradient_profile import Slope, growing, over_time
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ExplodingGradient(Rule):
    """A gradient that grows geometrically toward the first layers, or step after step.

    ## What it does
    Compares the loss gradient at the pre-activations of the first quarter of the weight
    layers (their median) with the best-fed of the last quarter, without what the loss,
    pooling and other structural operations do. Flags a network in which it grows to more than
    `limit` times, with several layers sharing the growth, at the initialization and still in
    the later half of the watched training, if that was reached; a growth to more than
    `warning_limit` times is a warning. Flags as well a total gradient norm that doubles on
    `doublings` of as many steps and one in a row while the loss rises.

    ## Why is this bad?
    Ten layers that double the gradient multiply it by 1024: the update of the first layers
    overshoots, the loss jumps, and in the end the numbers overflow.

    ## Example
    ```python
    layers = []
    for _ in range(12):
        layers += [nn.Linear(64, 64), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, std=0.5)
    model = nn.Sequential(*layers, nn.Linear(64, 4))
    batch = (torch.randn(64, 64), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    layers = []
    for _ in range(12):
        layers += [nn.Linear(64, 64), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    model = nn.Sequential(*layers, nn.Linear(64, 4))
    batch = (torch.randn(64, 64), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Plain networks with BatchNorm multiply the gradient by about 1.2 per layer at their start:
    30 layers make 1e2, 50 make 1e3. That passes within a few steps, so it is not
    reported once training was watched. A network that starts at a saddle point doubles its
    gradient while it learns; there the loss falls, and nothing is said. Where the loss is at
    its floor the norm wanders over decades: a rise is told only where it ends above every
    norm before it.

    ## References
    - [3] the table of 2^L: 1024 at 10 layers, and the symptoms of explosion; [4] figure 7.7
    - Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural networks"
    - Yang et al. (2019), "A mean field theory of batch normalization": 1.21 per layer
    - `warning_limit` and the persistence are our choice: of 100 small networks the only ones
      above 25 in the later half of 40 steps had weights of a standard deviation of 0.5 or more.
    """

    code: ClassVar = "GL302"
    name: ClassVar = "exploding-gradient"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("pre_activation_grad_norm", "total_gradient_norm")
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = (
        "Initialize with the gain of the activation that follows (nn.init.kaiming_normal_), add "
        "normalization, or clip the total gradient norm (nn.utils.clip_grad_norm_)."
    )

    limit: float = 1e3
    warning_limit: float = 1e2
    doublings: int = 4

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is nothing to judge, or None."""
        return None if trace.facts.flows else super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for growth over depth, else one for growth over steps."""
        over_depth = self._over_depth(trace)
        if over_depth is not None:
            yield over_depth
            return
        yield from self._over_steps(trace)

    def _over_depth(self, trace: Trace) -> Finding | None:
        verdict = over_time(trace, growing)
        if not verdict.both:
            return None
        weakest = min(verdict.both, key=lambda s: s.decades)
        growth = 10.0**weakest.decades
        if not growth > self.warning_limit or not all(s.geometric for s in verdict.both):
            return None
        severe = growth > self.limit
        return self._finding(trace, verdict.initial or weakest, severe)

    def _finding(self, trace: Trace, slope: Slope, severe: bool) -> Finding:
        early, late = slope.shown_early.site, slope.shown_late.site
        growth = 10.0**slope.shown_decades
        limit = self.limit if severe else self.warning_limit
        kinds = slope.decades_by_kind()
        blamed = {k: v for k, v in kinds.items() if k != "structural"}
        worst = max(blamed, key=lambda k: blamed[k])
        flooded = tuple(
            f.site.path
            for f in slope.flows
            if f.blamed - slope.shown_late.blamed > math.log10(limit)
        )
        return self.finding(
            early.path,
            f"gradient grows by {growth:.1e} from {late.path or 'the model'} to "
            f"{early.path or 'the model'} (limit {limit:.0e}): {slope.per_layer:.2g} per layer, "
            f"{blamed[worst]:.1f} of {slope.shown_decades:.1f} decades in {worst}",
            trace=trace,
            severity=Severity.ERROR if severe else Severity.WARNING,
            modules=tuple(dict.fromkeys((early.path, *flooded))),
            step=slope.step,
            evidence={
                "growth": growth,
                "limit": limit,
                "decades": {k: round(v, 2) for k, v in kinds.items()},
                "per_layer": slope.per_layer,
                "layers": _largest(slope.flows[0].layers),
                "from": late.path,
            },
        )

    def _over_steps(self, trace: Trace) -> Iterator[Finding]:
        norms = {o.step: o.value for o in trace.of("total_gradient_norm") if o.step > 0}
        losses = {o.step: o.value for o in trace.of("loss") if o.step > 0}
        for first in sorted(norms):
            steps = range(first, first + self.doublings + 2)
            if not all(s in norms and s in losses for s in steps):
                continue
            values = [norms[s] for s in steps]
            doubled = sum(b >= 2 * a > 0 for a, b in itertools.pairwise(values))
            grown = values[-1] / values[0] if values[0] > 0 else 0.0
            rising = losses[steps[-1]] > losses[steps[0]] or math.isnan(losses[steps[-1]])
            if doubled < self.doublings or grown < 2.0**self.doublings or not rising:
                continue
            if values[-1] <= max(norms[s] for s in norms if s <= first):
                continue  # the run has been there before: noise at the loss's floor
            start, end = norms[min(norms)], norms[max(norms)]
            severe = not math.isfinite(end) or end > self.limit * start
            yield self.finding(
                "",
                f"total gradient norm doubled on {doubled} of {len(steps) - 1} steps in a row "
                f"(limit {self.doublings}), from {values[0]:.2g} at step {steps[0]} to "
                f"{values[-1]:.2g} at step {steps[-1]}, while the loss rose from "
                f"{losses[steps[0]]:.2g} to {losses[steps[-1]]:.2g}",
                severity=Severity.ERROR if severe else Severity.WARNING,
                help="Lower the learning rate, or clip the total gradient norm "
                "(nn.utils.clip_grad_norm_).",
                step=steps[0],
                stage=Stage.UPDATE,
                evidence={
                    "doublings": doubled,
                    "limit": self.doublings,
                    "growth": grown,
                    "norms": {str(s): norms[s] for s in steps},
                },
            )
            return


def _largest(layers: Mapping[str, float], count: int = 5) -> dict[str, float]:
    """Return the `count` modules that add most, in decades."""
    ordered = sorted(layers.items(), key=lambda item: -item[1])
    return {path: round(value, 2) for path, value in ordered[:count] if value > 0}
