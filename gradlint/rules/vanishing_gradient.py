"""Gradients that shrink from layer to layer on their way to the input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._gradient_profile import Slope, over_time, shrinking, unfed
from gradlint.rules._scale_free import divides_scale_out
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_FLAT = frozenset({"Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign", "LogSigmoid"})


@dataclass(frozen=True)
class VanishingGradient(Rule):
    """A gradient that shrinks geometrically from the loss to the first layers.

    ## What it does
    Compares the loss gradient at the pre-activations of the first quarter of the weight
    layers with that of the last quarter, by the best-fed layer of each, without what the loss,
    pooling and other structural operations do. Flags a network in which it shrinks below
    `limit` under an optimizer that keeps the gradient's scale (SGD), below `adaptive_limit`
    under one that divides it out (Adam and its kin; also where no optimizer was given),
    there as a warning from `adaptive_warning` on. Several layers must share the loss, and it
    must still be there in the later half of the watched training. A gradient that falls below
    `adaptive_limit` only then is a warning.

    ## Why is this bad?
    The gradient of an early layer is the product of all factors behind it:
    $\\prod_l \\mathrm{diag}(f'(z_l))\\,W_l$. Ten factors of 0.25 make 1e-6: the last layers
    learn, on top of first layers that stay at random.

    ## Example
    ```python
    layers = []
    for _ in range(12):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(16, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    layers = []
    for _ in range(12):
        layers += [nn.Linear(16, 16), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    model = nn.Sequential(*layers, nn.Linear(16, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Adam gets networks going that start below `adaptive_warning`, given thousands of steps;
    one that recovers while it is watched is not reported, and a warning needs that look. A
    loss of gradient in one single layer (a layer scale, a zero-initialized branch, a
    bottleneck) is no geometric series and is left to other rules. Networks of fewer than four
    weight layers are not judged, nor is what happens inside a fused recurrent layer.

    ## References
    - [0] section 4.4 and exercise 4.3 (0.9^L); [3] the table of 0.25^L: 1e-3 at 5 layers, 1e-6
      at 10; [4] figure 7.7
    - Glorot & Bengio (2010), "Understanding the difficulty of training deep feedforward
      neural networks"
    - The limits were set by training (`tests/calibration/vanishing_gradient.py`, chance is a
      loss of 1.6): of 11 plain networks under SGD the 6 that stayed below 1e-3 for 40 steps were
      at 1.1 to 1.6 after 2000, the 5 above 2.5e-3 at 0.1 to 0.2. Of 14 under Adam the 2 that
      stayed below 1e-5 were at 1.2 and 1.6, the 2 below 1e-4 at 0.4 and 0.7, the others at 0.1
      to 0.5.
    """

    code: ClassVar = "GL301"
    name: ClassVar = "vanishing-gradient"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("pre_activation_grad_norm",)
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = (
        "Use ReLU, GELU or SiLU in the hidden layers, initialize for the activation that follows "
        "(nn.init.kaiming_normal_), or add normalization or residual connections."
    )

    limit: float = 1e-3
    adaptive_limit: float = 1e-5
    adaptive_warning: float = 1e-4

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no profile to judge, or None."""
        return None if trace.facts.flows else "no gains of single operations were observed"

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding: the profile belongs to the whole network."""
        verdict = over_time(trace, shrinking)
        slopes = [s for s in verdict.both if s.geometric]
        if not slopes:
            return
        error, warning = self._limits(trace)
        weakest = max(slopes, key=lambda s: s.decades)
        lasting = len(slopes) == len(verdict.both)
        if verdict.later is None:
            warning = error  # whether it recovers is not known
        if lasting and 10.0**weakest.decades < warning:
            severe = 10.0**weakest.decades < error
            shown = verdict.initial or weakest
            yield self._finding(trace, shown, error if severe else warning, severe)
        elif verdict.later in slopes and 10.0**verdict.later.decades < self.adaptive_limit:
            yield self._finding(trace, verdict.later, self.adaptive_limit, severe=False)

    def _limits(self, trace: Trace) -> tuple[float, float]:
        """Return the limit of an error and that of a warning."""
        optimizer = trace.facts.optimizer
        if optimizer is None or optimizer.probe or divides_scale_out(optimizer):
            return self.adaptive_limit, self.adaptive_warning
        return self.limit, self.limit

    def _finding(self, trace: Trace, slope: Slope, limit: float, severe: bool) -> Finding:
        early, late = slope.shown_early.site, slope.shown_late.site
        decay = 10.0**slope.shown_decades
        kinds = slope.decades_by_kind()
        blamed = {k: v for k, v in kinds.items() if k != "structural"}
        worst = min(blamed, key=lambda k: blamed[k])
        before = unfed(trace, slope)
        zero = f", and is exactly 0 in {_layers(len(before))} before it" if before else ""
        starved = tuple(
            f.site.path
            for f in slope.flows
            if f.blamed - slope.shown_late.blamed < math.log10(limit)
        )
        places = tuple(dict.fromkeys((early.path, *before, *starved)))
        return self.finding(
            early.path,
            f"gradient shrinks by {decay:.1e} from {late.path or 'the model'} to "
            f"{early.path or 'the model'} (limit {limit:.0e}){zero}: {slope.per_layer:.2g} per "
            f"layer, {-blamed[worst]:.1f} of {-slope.shown_decades:.1f} decades in {worst}",
            trace=trace,
            severity=Severity.ERROR if severe else Severity.WARNING,
            help=_help(worst, self.help),
            modules=places,
            step=slope.step,
            evidence={
                "decay": decay,
                "limit": limit,
                "decades": {k: round(v, 2) for k, v in kinds.items()},
                "per_layer": slope.per_layer,
                "layers": _smallest(slope.flows[0].layers),
                "from": late.path,
                "zero_layers": len(before),
            },
        )


def _layers(count: int) -> str:
    return "the layer" if count == 1 else f"the {count} layers"


def _smallest(layers: Mapping[str, float], count: int = 5) -> dict[str, float]:
    """Return the `count` modules that lose most, in decades."""
    ordered = sorted(layers.items(), key=lambda item: item[1])
    return {path: round(value, 2) for path, value in ordered[:count] if value < 0}


def _help(worst: str, otherwise: str) -> str:
    if worst in _FLAT:
        return (
            f"Replace {worst} in the hidden layers by ReLU, GELU or SiLU, or add normalization or "
            "residual connections."
        )
    if worst in ("weights", "ReLU", "LeakyReLU"):  # half of a ReLU is flat: weights make up for it
        return (
            "Initialize with the gain of the activation that follows (nn.init.kaiming_normal_ for "
            "ReLU, nn.init.xavier_normal_ for tanh), or add normalization or residual connections."
        )
    return otherwise
