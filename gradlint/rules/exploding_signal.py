"""Activations that grow geometrically with depth at initialization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._chains import (
    Link,
    chains,
    factor,
    signal,
    trend_of,
    why_not_initial,
    with_sums,
)
from gradlint.rules.base import Rule
from gradlint.trace import Trace

HELP_OF_SUMS = (
    "Average what is summed between the layers (over neighbors: divide by their number), or "
    "normalize there."
)


@dataclass(frozen=True)
class ExplodingSignal(Rule):
    """Activations that grow layer by layer, before any training.

    ## What it does
    Follows the root mean square (RMS) of the activations at step 0 along each chain of at
    least `min_layers` weight layers that nothing normalizes and no residual add joins; where
    none grows, past sums over neighbors of a graph and over parallel branches, too. Flags
    a chain whose RMS grows beyond `warning_above` times where it began (an error beyond
    `error_above`), with two thirds of its layers taking part and the steepest layer left out
    of the count. Only ratios along depth count, not the input's scale. A profile that ends
    in infinity or NaN after such a growth is the same fault: it overflowed because it grew.

    ## Why is this bad?
    The output, the loss and every gradient are larger by the same factor: the first updates
    are far too large for any usual learning rate, and float32 overflows at 3e38.

    ## Example
    ```python
    layers = []
    for _ in range(50):
        linear = nn.Linear(100, 100)
        nn.init.normal_(linear.weight, std=0.1**0.5)
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
    One large layer is a step, not a trend: the steepest layer does not count. A network
    meant to amplify by depth has to be told so with an ignore. Weights that were loaded are
    not judged. Residual streams are growing-residual's business.

    ## References
    - Prince (2023), "Understanding Deep Learning", figure 7.7 ([4]): σ² = 0.1 and 1 explode
      over 50 layers of 100 ReLU units, σ² = 0.02 does not. He initialization there wanders
      by less than one decade; hence two decades for a warning.
    - He et al. (2015), "Delving deep into rectifiers", section 2.2
    - Five graph layers with torch's own initialization that sum over 3 or 6 neighbors stay
      below two decades, as eight over 3 do; over 12 or 25 they grow 6 to 14 times a layer
    """

    code: ClassVar = "GL104"
    name: ClassVar = "exploding-signal"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("activation_rms",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Initialize with the gain of the activation (nn.init.kaiming_normal_ for ReLU, "
        "nn.init.xavier_normal_ for tanh), or add normalization or residual connections."
    )

    warning_above: float = 1e2
    error_above: float = 1e3
    min_layers: int = 5

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each chain along which the signal explodes."""
        graph = trace.graph
        found = list(self._grown(trace, chains(graph)))
        summed = self._grown(trace, chains(graph, with_sums(graph)), HELP_OF_SUMS)
        yield from found or islice(summed, 1)  # parallel layers grow together

    def _grown(
        self, trace: Trace, along: Iterable[Sequence[Link]], advice: str | None = None
    ) -> Iterator[Finding]:
        for chain in along:
            points = signal(trace, chain)
            trend = trend_of([rms for _, rms in points], growing=True)
            if trend is None or trend.sharing < self.min_layers - 1:
                continue
            grown = factor(trend.spared)
            if not grown > self.warning_above or 3 * trend.sharing < 2 * (trend.layers - 1):
                continue
            overflows = trend.end is not None and trend.end != 0
            severe = grown > self.error_above or overflows
            behind = ", then overflows" if overflows else ""
            part = points[trend.start : trend.start + trend.layers]
            yield self.finding(
                part[0][0],
                f"activation RMS grows from {trend.first:.2g} to {trend.last:.2g} over "
                f"{trend.layers} weight layers{behind}: {trend.per_layer:.2g} times a layer "
                f"(limit {self.error_above if severe else self.warning_above:.0f} over all)",
                trace=trace,
                help=advice or self.help,
                severity=Severity.ERROR if severe else Severity.WARNING,
                modules=tuple(dict.fromkeys(path for path, _ in part)),
                step=0,
                evidence={
                    "ratio": trend.last / trend.first,
                    "per_layer": trend.per_layer,
                    "layers": trend.layers,
                    "limit": self.warning_above,
                    "profile": dict(points),
                },
            )
