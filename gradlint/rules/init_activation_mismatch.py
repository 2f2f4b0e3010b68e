"""Weights whose scale does not fit the activation behind them, compounded over depth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import SIGMOIDAL
from gradlint.rules._chains import (
    DISPLAY,
    Link,
    chains,
    factor,
    initial_value,
    signal,
    trend_of,
    why_not_initial,
)
from gradlint.rules._gains import Gain, advice_for, gain_of
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class InitActivationMismatch(Rule):
    """Weights too small or too large for the activation that follows, layer after layer.

    ## What it does
    Compares each weight's gain at step 0, its standard deviation times √(fan in), with the
    gain that keeps the signal's size through the activation behind it: √2 for ReLU
    (√(2/(1+slope²)) for LeakyReLU), 1 to 5/3 for tanh, 1 for SELU and for no activation.
    Multiplies the quotients over each un-normalized chain of at least `min_layers` weight
    layers, the output layer (unless the signal grows up to it and in it) and the most extreme
    layer left out. A note if the product leaves `limit` … 1/`limit`; a warning if the measured
    activations leave it, too, or the product leaves the square of that range. Where bounded
    activations saturate (a share above `max_saturated`) two layers and a product of
    `max_saturating` are enough for a warning.

    ## Why is this bad?
    A factor of 0.41 a layer (torch's default for `Linear` in front of ReLU) is harmless once
    and 1e-8 over twenty layers, forward and backward alike: first layers do not learn.

    ## Example
    ```python
    layers = []
    for _ in range(12):
        linear = nn.Linear(64, 64)
        nn.init.normal_(linear.weight, std=0.01)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    batch = (torch.randn(64, 64), torch.randint(0, 10, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    layers = []
    for _ in range(12):
        linear = nn.Linear(64, 64)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    batch = (torch.randn(64, 64), torch.randint(0, 10, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Weights rescaled at run time (equalized learning rate) have another effective gain: a
    growth that the measured activations contradict is not reported. Sigmoid layers lose the
    gradient at any scale; only gains above 4 or below 0.5 count for them. Small gains under
    Adam train up to some depth: with torch's default, digits, 64 ReLU units and 400 steps,
    8 layers reach a loss of 0.02, 12 layers 0.33, 20 layers 1.1, 30 layers none (He: below
    0.12 at every depth); hence a note at a product of 1e-2 and a warning at 1e-4.

    ## References
    - He et al. (2015), "Delving deep into rectifiers", section 2.2; [4] section 7.5
    - Glorot & Bengio (2010), "Understanding the difficulty of training deep feedforward
      neural networks", section 4.2.1; [0] section 4.3
    - `torch.nn.init.calculate_gain`: √2 for ReLU, 5/3 for tanh, 3/4 for SELU
    - Depth and default gain: `tests/calibration/default_init_depth.py`
    """

    code: ClassVar = "GL101"
    name: ClassVar = "init-activation-mismatch"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("init_gain",)
    stage: ClassVar = Stage.INITIALIZATION
    measure: ClassVar = "product"
    help: ClassVar = "Initialize every weight with the gain of the activation that follows it."

    limit: float = 1e-2
    max_saturated: float = 0.25
    max_saturating: float = 3.0
    min_layers: int = 4

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each chain whose gains compound."""
        for chain in chains(trace.graph):
            if len(chain) < 3:
                break
            body = chain if chain[-1].activation is not None else chain[:-1]
            found = self._judge(trace, body)
            if found is None and body is not chain:
                # An output layer may start as small as it likes, but not this large.
                found = self._judge(trace, chain, growing=True)
            if found is not None:
                yield found

    def _judge(
        self, trace: Trace, body: Sequence[Link], *, growing: bool = False
    ) -> Finding | None:
        """Return what is to be said of a chain; of its growth alone, if `growing`."""
        asked = -math.log10(self.limit)
        layers = [layer for link in body if (layer := gain_of(trace, link)) is not None]
        product = sum(layer.decades for layer in layers)
        sign = math.copysign(1, product)
        off = [layer for layer in layers if sign * layer.decades > 0.1]
        flat = self._saturated(trace, body) if sign > 0 else None
        if growing and (sign < 0 or flat is not None):
            return None
        if len(off) < (2 if flat else self.min_layers) or 4 * len(off) < 3 * len(layers):
            return None
        spared = sign * product - max(sign * layer.decades for layer in layers)
        measured = math.inf if flat else _measured(trace, body, growing=sign > 0)
        # Weights rescaled at run time have another gain than is written in them.
        denied = sign > 0 and not flat and (flat is not None or measured < 1)
        if spared > (math.log10(self.max_saturating) if flat else asked) and not denied:
            severe = measured > asked or spared > 2 * asked
            return self._found(trace, off, product, len(layers), flat, severe=severe)
        return None

    def _saturated(self, trace: Trace, chain: Sequence[Link]) -> float | None:
        """Return the saturated share of bounded activations: 0 if harmless, None without any."""
        sites = [a.site for link in chain if (a := link.activation) and a.kind in SIGMOIDAL]
        if not sites:
            return None
        shares = [initial_value(trace, "saturated_share", site) for site in sites]
        share = statistics.median([share for share in shares if share is not None] or [0.0])
        return share if share > self.max_saturated else 0.0

    def _found(
        self,
        trace: Trace,
        off: Sequence[Gain],
        product: float,
        layers: int,
        flat: float | None,
        *,
        severe: bool,
    ) -> Finding:
        kind = statistics.mode(layer.activation for layer in off)
        alike = [layer for layer in off if layer.activation == kind]
        gain = statistics.median(layer.gain for layer in alike)
        wanted = statistics.median(layer.wanted for layer in alike)
        behind = DISPLAY.get(kind, kind.capitalize()) or "no activation"
        limit = self.limit if product < 0 else 1 / self.limit
        times = factor(product)
        effect = "vanishes" if product < 0 else "explodes"
        effect = f"the signal {effect} to {times:.1e} times its size (limit {limit:.2g})"
        if flat:
            effect = f"{flat:.0%} of elements saturate (limit {self.max_saturated:.0%})"
        return self.finding(
            off[0].path,
            f"weight gain is {gain:.2g} where {behind} asks for {wanted:.2g}: over {layers} layers "
            f"without normalization {effect}",
            trace=trace,
            severity=Severity.WARNING if severe else Severity.NOTE,
            modules=tuple(dict.fromkeys(layer.path for layer in off)),
            step=0,
            help=advice_for(kind),
            evidence={
                "gain": gain,
                "wanted": wanted,
                "activation": behind,
                "layers": layers,
                "product": times,
                "limit": limit,
            },
        )


def _measured(trace: Trace, chain: Sequence[Link], *, growing: bool) -> float:
    """Return the decades by which the measured signal changes in the direction predicted.

    Without a measurement that is 0 for a fall and, as nothing denies it, 1 for a growth.
    """
    points = [rms for _, rms in signal(trace, chain)]
    trend = trend_of(points, growing=growing)
    if trend is None:
        return 0.0 if points or not growing else 1.0
    return abs(trend.spared)
