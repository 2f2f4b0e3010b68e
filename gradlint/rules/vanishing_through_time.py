"""Recurrent layers whose gradient does not reach the first time steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import noise, progress
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class VanishingThroughTime(Rule):
    """A recurrent layer whose gradient is gone before it reaches the first time steps.

    ## What it does
    After the watched training, measures the loss's gradient at every time step of what an RNN,
    LSTM or GRU of one direction is given. Speaks where over the first quarter of the steps
    before the last one read it is below `min_ratio` of the largest. For a plain RNN that is a
    warning where the loss stayed within `min_fall` of its start, and else a note; for LSTM and
    GRU, whose gates learn to open, a note where the loss stayed, and else nothing.

    ## Why is this bad?
    What the layer was told early cannot influence what it learns: next to the gradient of the
    last steps that of the first is below the rounding error of float32. Dependencies of that
    length are not learned, however long the training.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(4, 32, batch_first=True)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    model = Net()
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(0.1)
    x = torch.randn(64, 60, 4)
    batch = (x, x[:, 0].argmax(1))  # asks for the first step
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(4, 32, batch_first=True)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    model = Net()
    nn.init.orthogonal_(model.rnn.weight_hh_l0)
    x = torch.randn(64, 60, 4)
    batch = (x, x[:, 0].argmax(1))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ```

    ## When it is wrong
    Where the last steps are all that counts, an early gradient would be of no use: a training
    that learns is at most a note. Losses at every step, attention and packed sequences of
    other lengths give early steps a gradient of their own; layers of two directions are not
    judged.

    ## References
    - Reference [2], section 2.3; Pascanu et al. (2013), "On the difficulty of training
      recurrent neural networks", section 2.1: the norm falls geometrically with the distance
    - `min_ratio` is float32's rounding error; the recurrent networks of tests/zoo that learn
      keep 0.05 to 0.5, LSTMs that do not learn 1e-6 to 1e-5
    """

    code: ClassVar = "GL305"
    name: ClassVar = "vanishing-through-time"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.BACKWARD
    help: ClassVar = (
        "Initialize recurrent weights orthogonally, use an LSTM with a forget bias of 1, or give "
        "the loss a way to early steps (attention, pooling over time)."
    )

    min_ratio: float = 1e-7
    min_fall: float = 0.02

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no time steps were told apart."""
        if "time-gradients" not in trace.facts.probes:
            return "no recurrent layer of one direction over enough time steps"
        if trace.facts.synthesized:
            return "the batch was made up: its length proves nothing"
        return None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each layer whose early gradient is gone."""
        stayed = self._stayed(trace)
        for path, seen in trace.facts.probes.get("time-gradients", {}).items():
            ratio, gated = float(seen["ratio"]), seen["kind"] != "RNN"
            if not ratio < self.min_ratio or (gated and not stayed):
                continue
            yield self.finding(
                path,
                f"over {seen['steps']} time steps the gradient falls to {ratio:.2g} of its size "
                f"(limit {self.min_ratio:g}): the first steps have none",
                trace=trace,
                severity=Severity.WARNING if stayed and not gated else Severity.NOTE,
                evidence={"ratio": ratio, "limit": self.min_ratio, "time_steps": seen["steps"]},
            )

    def _stayed(self, trace: Trace) -> bool:
        """Whether the loss is where it began."""
        seen = progress(trace)
        if seen is None:
            return False
        first, late = seen
        return first - late < max(self.min_fall * abs(first), noise(trace))
