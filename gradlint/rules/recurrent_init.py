"""Recurrent weights that blow the state up, or forget it, from the start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import RECTIFIERS
from gradlint.rules._chains import factor, initial_value, weight_of, why_not_initial
from gradlint.rules._recurrences import recurrences
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class RecurrentInit(Rule):
    """A recurrent weight whose gain, to the power of the steps, leaves every scale.

    ## What it does
    Finds the weight that a plain recurrent network (RNN, not LSTM or GRU) applies to its own
    state, over at least `min_steps` time steps. Its gain is its standard deviation times
    √width, which for random weights is the spectral radius. A warning where a rectified
    state grows beyond `max_growth` (gain over √2, to the power of the steps), or where the
    gain in front of tanh is above `saturating`, or above 1 while its gradient, as a share of the
    weight, is over `chaotic` times that of the last layer; a note where the gain is below
    `forgetting`.

    ## Why is this bad?
    The state at step t holds the first input times gainᵗ, and the gradient goes the same way
    back: 2.5 to the power of 40 is 1e16, 0.2 is 1e-28.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(4, 32)
            self.turn = nn.Linear(32, 32, bias=False)
            self.head = nn.Linear(32, 3)
            nn.init.normal_(self.turn.weight, std=1.0)

        def forward(self, x):
            h = torch.zeros(len(x), 32)
            for t in range(x.shape[1]):
                h = torch.tanh(self.read(x[:, t]) + self.turn(h))
            return self.head(h)

    model = Net()
    batch = (torch.randn(32, 12, 4), torch.randint(0, 3, (32,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(4, 32)
            self.turn = nn.Linear(32, 32, bias=False)
            self.head = nn.Linear(32, 3)
            nn.init.orthogonal_(self.turn.weight)

        def forward(self, x):
            h = torch.zeros(len(x), 32)
            for t in range(x.shape[1]):
                h = torch.tanh(self.read(x[:, t]) + self.turn(h))
            return self.head(h)

    model = Net()
    batch = (torch.randn(32, 12, 4), torch.randint(0, 3, (32,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A network that only needs its last few inputs is well with a small gain: that is a note,
    and torch's default (0.58) is silent. Weights that were loaded, gated cells and fused
    kernels are not judged.

    ## References
    - [1] orthogonal initialization; Saxe, McClelland & Ganguli (2014), "Exact solutions to the
      nonlinear dynamics of learning in deep linear neural networks"
    - Pascanu, Mikolov & Bengio (2013), "On the difficulty of training recurrent neural
      networks": the largest singular value and the length of the sequence
    - Sompolinsky, Crisanti & Sommers (1988), "Chaos in random neural networks": tanh networks of
      a gain above 1 are chaotic. Measured on waves of 12 to 120 steps: 0.07 to 0.4 times the
      last layer's gradient up to a gain of 1.5, where they learn; 35 to 1e8 times from 2.5 on,
      where they do not. `chaotic` is the limit of exploding-gradient over depth.
    - Identity, orthogonal and torch's weights have gains of 1, 1 and 0.58; 4 and 0.3 are our
      choice, so that nothing that is used on purpose is flagged
    """

    code: ClassVar = "GL108"
    name: ClassVar = "recurrent-init"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("init_gain", "gradient_ratio")
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = "Initialize the recurrent weight with nn.init.orthogonal_, or use a GRU."

    min_steps: int = 10
    max_growth: float = 1e3
    saturating: float = 4.0
    forgetting: float = 0.3
    chaotic: float = 1e2

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each recurrent weight."""
        for path, links in recurrences(trace):
            steps = len(links)
            gain = initial_value(trace, "init_gain", path)
            activation = links[0].activation
            if steps < self.min_steps or activation is None or not gain:
                continue
            kept = gain / math.sqrt(2) if activation.kind in RECTIFIERS else gain
            rectified = activation.kind in RECTIFIERS
            decades = steps * math.log10(kept)
            floods = 0.0 if rectified or gain <= 1 else _against_the_last(trace, path)
            severity = Severity.WARNING
            if rectified and factor(decades) > self.max_growth:
                says = f"the state grows by {factor(decades):.1e}"
            elif not rectified and gain > self.saturating:
                says = f"the state saturates (limit {self.saturating:.2g})"
            elif floods > self.chaotic:
                says = (
                    f"its gradient grows to {floods:.2g} times the last layer's, as shares of the "
                    f"weights (limit {self.chaotic:.0f})"
                )
            elif gain < self.forgetting:
                severity = Severity.NOTE
                says = f"of an input {factor(decades):.1e} is left (limit {self.forgetting:.2g})"
            else:
                continue
            yield self.finding(
                links[0].path,
                f"recurrent weight {path} has a gain of {gain:.2g}: over {steps} steps {says}",
                trace=trace,
                severity=severity,
                parameter=path,
                step=0,
                evidence={"gain": gain, "steps": steps, "decades": decades},
            )


def _against_the_last(trace: Trace, path: str) -> float:
    """Return a weight's gradient against that of the last layer behind it, as shares of both."""
    others = [w for op in trace.weight_layers() if (w := weight_of(trace, op)) and w != path]
    mine = initial_value(trace, "gradient_ratio", path)
    last = initial_value(trace, "gradient_ratio", others[-1]) if others else None
    return mine / last if mine and last else 0.0
