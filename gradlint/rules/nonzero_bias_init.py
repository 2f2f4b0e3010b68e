"""Biases that outweigh the signal at initialization."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import ACTIVATIONS
from gradlint.rules._chains import (
    DISPLAY,
    bias_of,
    following_activation,
    initial_value,
    why_not_initial,
)
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_GATING = frozenset({"sigmoid", "hardsigmoid", "logsigmoid", "softplus", "glu"})


@dataclass(frozen=True)
class NonzeroBiasInit(Rule):
    """A hidden layer whose biases start larger than the signal they are added to.

    ## What it does
    Flags a bias in front of an activation whose RMS at step 0 is above `max_rms` and more
    than `max_ratio` times the standard deviation of the weighted input it shifts.

    ## Why is this bad?
    The bias alone decides where each unit sits on its activation: a rectifier is always off
    or always linear, a tanh is saturated, whatever the input.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    nn.init.constant_(model[0].bias, 10.0)
    batch = (torch.randn(64, 16), torch.randn(64, 1))
    loss_fn = nn.MSELoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    nn.init.zeros_(model[0].bias)
    batch = (torch.randn(64, 16), torch.randn(64, 1))
    loss_fn = nn.MSELoss()
    ```

    ## When it is wrong
    Gates are biased open or shut on purpose (forget gates, highway networks, the step sizes
    of state-space models), output layers to the targets' mean or a class's rarity: neither
    sigmoid, softplus and GLU nor layers without an activation are judged.

    ## References
    - [4] section 7.5 and [0] section 4.3: biases start at zero
    - Goodfellow, Bengio & Courville (2016), "Deep Learning", section 8.4: when not to
    - The limits are our choice: torch's default biases are below 1/√(fan in) ≤ 1, and the
      1 of the original AlexNet stays allowed.
    """

    code: ClassVar = "GL111"
    name: ClassVar = "nonzero-bias-init"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("weight_rms", "weight_std", "activation_std")
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = "Start the biases of hidden layers at zero (nn.init.zeros_)."

    max_rms: float = 1.0
    max_ratio: float = 2.0

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each bias that outweighs its layer's signal."""
        for op in trace.weight_layers():
            bias = bias_of(trace, op)
            activation = following_activation(trace.graph, op)
            facts = trace.modules.get(op.site)
            if bias is None or activation is None or (facts is not None and not facts.leaf):
                continue
            if activation.kind not in ACTIVATIONS - _GATING or activation.attributes.get("gate"):
                continue
            size = initial_value(trace, "weight_rms", bias)
            spread = initial_value(trace, "weight_std", bias)
            whole = initial_value(trace, "activation_std", op.site)
            if size is None or spread is None or whole is None or not size > self.max_rms:
                continue
            weighted = math.sqrt(max(whole**2 - spread**2, 0.0))
            if not size > self.max_ratio * weighted:
                continue
            name = DISPLAY.get(activation.kind, activation.kind.capitalize())
            yield self.finding(
                op.module,
                f"bias in front of {name} has an RMS of {size:.2g} at step 0 where the weighted "
                f"input varies by {weighted:.2g} (limit {self.max_ratio:.2g} times)",
                trace=trace,
                parameter=bias,
                step=0,
                evidence={"bias": size, "weighted_input": weighted, "limit": self.max_rms},
            )
