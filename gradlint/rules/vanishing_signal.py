"""Activations that shrink geometrically with depth at initialization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._chains import chains, factor, signal, trend_of, why_not_initial
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class VanishingSignal(Rule):
    """Activations that shrink layer by layer, before any training.

    ## What it does
    Follows the root mean square (RMS) of the activations at step 0 along each chain of at
    least `min_layers` weight layers that nothing normalizes and no residual add joins. Flags
    a chain whose RMS falls below `warning_below` of where it began (an error below
    `error_below`), with two thirds of its layers taking part and the steepest layer left out
    of the count. Only ratios along depth count, not the input's scale. A profile that ends
    in exact zeros after such a fall is the same fault.

    ## Why is this bad?
    The output no longer depends on the input, and every weight gradient is a product with
    an activation: layers behind tiny activations get tiny gradients.

    ## Example
    ```python
    layers = []
    for _ in range(50):
        linear = nn.Linear(100, 100)
        nn.init.normal_(linear.weight, std=0.01**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(100, 1))
    batch = (torch.randn(64, 100), torch.zeros(64, 1))
    loss_fn = nn.MSELoss()
    ```

    Use instead:
    ```python
    layers = []
    for _ in range(50):
        linear = nn.Linear(100, 100)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(100, 1))
    batch = (torch.randn(64, 100), torch.zeros(64, 1))
    loss_fn = nn.MSELoss()
    ```

    ## When it is wrong
    A zero-initialized or tiny last layer is one step, not a trend: the steepest layer does
    not count. Biases keep the RMS up where the input's share of it has vanished: torch's own
    initialization ends at a floor of about 0.6/√(fan in), which this rule does not see
    (init-activation-mismatch and vanishing-gradient do). Weights that were loaded are not
    judged. Multiplicative scales that are parameters (LayerScale, ReZero) end a chain.

    ## References
    - Prince (2023), "Understanding Deep Learning", figure 7.7 ([4]): σ² = 0.001 and 0.01
      vanish over 50 layers of 100 ReLU units, σ² = 0.02 does not. He initialization there
      wanders by less than one decade; hence two decades for a warning.
    - He et al. (2015), "Delving deep into rectifiers", section 2.2
    """

    code: ClassVar = "GL103"
    name: ClassVar = "vanishing-signal"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("activation_rms",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Initialize with the gain of the activation (nn.init.kaiming_normal_ for ReLU, "
        "nn.init.xavier_normal_ for tanh), or add normalization or residual connections."
    )

    warning_below: float = 1e-2
    error_below: float = 1e-3
    min_layers: int = 5

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each chain along which the signal vanishes."""
        for chain in chains(trace.graph):
            points = signal(trace, chain)
            trend = trend_of([rms for _, rms in points], growing=False)
            if trend is None or trend.sharing < self.min_layers - 1:
                continue
            lost = factor(trend.spared)
            if not lost < self.warning_below or 3 * trend.sharing < 2 * (trend.layers - 1):
                continue
            severe = lost < self.error_below or trend.end == 0
            zeros = ", then is exactly 0" if trend.end == 0 else ""
            part = points[trend.start : trend.start + trend.layers]
            yield self.finding(
                part[0][0],
                f"activation RMS falls from {trend.first:.2g} to {trend.last:.2g} over "
                f"{trend.layers} weight layers{zeros}: {trend.per_layer:.2g} times a layer "
                f"(limit {self.error_below if severe else self.warning_below:.0e} over all)",
                trace=trace,
                severity=Severity.ERROR if severe else Severity.WARNING,
                modules=tuple(dict.fromkeys(path for path, _ in part)),
                step=0,
                evidence={
                    "ratio": trend.last / trend.first,
                    "per_layer": trend.per_layer,
                    "layers": trend.layers,
                    "limit": self.warning_below,
                    "profile": dict(points),
                },
            )
