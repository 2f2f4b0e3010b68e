"""Sigmoidal layers on the flat part of their activation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import STRUCTURAL, Operation
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class SaturatedActivations(Rule):
    """Sigmoid or tanh layers with most of their elements where the derivative is near zero.

    ## What it does
    Flags a hidden sigmoid, tanh, hardsigmoid or hardtanh with more than `max_share` of its
    elements saturated (a derivative below 5 % of its maximum) on the median batch of step 0
    and still on the median step of the later half of the watched training; and one that had
    more than `max_share_trained` of them saturated over that half, whatever it began with.
    At least `min_observations` of each are needed; two of the later half do for a layer that
    was above `max_share` at every one of `min_observations` times two steps or more, and one
    does after three times as many. Flags a sigmoid gate, too, none of whose outputs was above
    `shut` at step 0 and at any later look: where it is that near to zero, a sum of one and the
    gate is one, and next to nothing passes it in either direction.

    ## Why is this bad?
    The gradient is multiplied by the derivative: behind a saturated layer next to nothing of
    it is left, and the layer cannot leave the flat part for the same reason.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )
    for layer in (model[0], model[2]):
        nn.init.normal_(layer.weight, std=1.0)
    batch = (torch.randn(64, 64), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )
    for layer in (model[0], model[2]):
        nn.init.xavier_normal_(layer.weight)
    batch = (torch.randn(64, 64), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Gates (an activation whose output multiplies another signal: LSTM, GLU, squeeze and
    excitation) open and close on purpose and are left out unless they are shut altogether, and
    so is the activation in front of the loss. Binary codes (hashing, quantization) push tanh to
    its ends by design.

    ## References
    - [0] section 4.2: the vanishing derivative of sigmoid and tanh; [3]: 0.25 at most
    - Glorot & Bengio (2010), section 3: saturation of hidden layers
    - Most elements, one half, is the word of the rule; healthy tanh and sigmoid networks at
      Xavier's or torch's initialization show less than 1 %, weights of N(0, 1) at 64 inputs 78 %.
    - Two late looks: a loop of 40 steps has no more. Of 111 hidden sigmoidal layers of the
      healthy recipes of tests/calibration none has 34 % at its least saturated look
    - `shut` is half the distance from 1 to the next smaller number of float32. Gates that are
      biased shut on purpose start at -1 to -4 (Srivastava et al. (2015), "Highway networks",
      section 2.3), where the sigmoid is above 0.01.
    """

    code: ClassVar = "GL202"
    name: ClassVar = "saturated-activations"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("saturated_share", "activation_abs_max")
    stage: ClassVar = Stage.FORWARD
    help: ClassVar = (
        "Initialize with nn.init.xavier_normal_, normalize the inputs, or use ReLU, GELU or SiLU."
    )

    max_share: float = 0.5
    max_share_trained: float = 0.9
    min_observations: int = 3
    shut: float = 2.0**-25

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each saturated layer, and for each gate that is shut."""
        yield from self._saturated(trace)
        yield from self._shut(trace)

    def _shut(self, trace: Trace) -> Iterator[Finding]:
        largest = trace.of("activation_abs_max")
        gates = (op for op in trace.graph.of_kind("sigmoid") if op.attributes.get("gate"))
        for path in dict.fromkeys(op.site for op in gates if not op.in_loss):
            seen = largest.at(path)
            if not seen.initial or len(seen) < self.min_observations:
                continue
            most = max(seen.values)
            if not most < self.shut:
                continue
            yield self.finding(
                seen.sites[0],
                f"the gate is shut: none of its outputs was above {most:.1g} at step 0"
                f"{_until(seen)} (limit {self.shut:.1g})",
                step=0,
                help="Start the gate's bias between -4 and 4: the sigmoid of -20 is 2e-9.",
                evidence={"largest": most, "limit": self.shut},
            )

    def _saturated(self, trace: Trace) -> Iterator[Finding]:
        shares = trace.of("saturated_share")
        hidden = {op.site for op in trace.graph if _is_hidden(trace, op)}
        last = max(trace.training.steps, default=0)
        for site in shares.sites:
            if site.path not in hidden:
                continue
            initial = shares.at(site).initial
            later = shares.at(site).since(last // 2 + 1) if last else shares.since(1)
            begun = len(initial) > 0 and initial.median > self.max_share
            if last:
                limit = self.max_share if begun else self.max_share_trained
                enough = len(later) >= self.min_observations
                always = self._always(shares.at(site).training) if begun else math.inf
                flagged = (enough or len(later) >= always) and later.median > limit
            else:
                limit = self.max_share
                flagged = begun and len(initial) >= self.min_observations
            if not flagged:
                continue
            share = initial.median if begun else later.median
            when = "at step 0" if begun else f"since step {later.steps[0]}"
            still = f" and {later.median:.0%} at step {last}" if begun and last else ""
            yield self.finding(
                site,
                f"{share:.0%} of elements are saturated {when}{still} (limit {limit:.0%})",
                step=0 if begun else later.steps[0],
                evidence={
                    "saturated_share": share,
                    "saturated_share_later": later.median if last else None,
                    "limit": limit,
                },
            )

    def _always(self, seen: Trace) -> float:
        """Return how many late looks do where a layer was saturated at every look there was.

        One, if the looks were many: late ones are as rare as a loop's time allows.
        """
        if len(seen) < 2 * self.min_observations or not min(seen.values) > self.max_share:
            return math.inf
        return 1 if len(seen) >= 3 * self.min_observations else 2


def _until(seen: Trace) -> str:
    last = max(seen.steps)
    return f" and up to step {last}" if last else ""


def _is_hidden(trace: Trace, op: Operation) -> bool:
    """Whether `op` is in the model, no gate, and not what the model returns to the loss."""
    if op.attributes.get("gate"):
        return False
    passes = STRUCTURAL | {"shift", "scale"}
    after = trace.graph.ahead(op, lambda o: o.kind in passes)
    return bool(after) and not all(o.in_loss for o in after)
