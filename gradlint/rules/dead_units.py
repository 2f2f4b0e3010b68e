"""Rectifier units that never fire."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import NORMALIZATIONS, STRUCTURAL, WEIGHTED, Operation
from gradlint.rules._losses import noise, progress
from gradlint.rules.base import Rule
from gradlint.trace import Site, Trace


@dataclass(frozen=True)
class DeadUnits(Rule):
    """Rectifier layers in which most units never fire.

    ## What it does
    Counts the units of a rectifier (ReLU, ReLU6) that are zero for every sample and position
    over several batches: at the initialization, and over the later half of the watched
    training, which decides where there is one. More than `note_fraction` of them is a note,
    more than `max_fraction` a warning (a note where the loss fell below `learned` of what it
    was, or steadily: by a fifth and `steady` times its noise, without ever rising above its
    start), more than `error_fraction` an error. Dead units are counted on at least
    `min_positions` samples and positions each; for an error `min_positions_error` are enough,
    in a layer of at least `min_units`.

    ## Why is this bad?
    A unit that is zero everywhere has zero gradient everywhere: it and the weights that
    feed it stop learning, and the layer is narrower than it was designed.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    nn.init.constant_(model[0].bias, -10.0)
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
    Sparse autoencoders, mixtures of experts and bags of words leave units silent on most
    samples by design. Deep plain networks map all inputs to nearly one direction, where a unit
    fires for all samples or for none, with equal odds: what was dead at step 0 already is
    reported above a note only if it is more than chance leaves (one half and three standard
    deviations). Units that die in the first steps while the loss falls to less than half may come
    back, as the layers in front of them move on: in a fully convolutional segmenter of 32 units
    under Adam at its default rate, 47, 53 and 19 % (three seeds) were silent at step 40, 31, 44
    and 19 % at step 400, where the loss was that of the same network with LeakyReLU (0.03).
    That is a note. So it is where the loss has a floor it cannot fall below: a PixelCNN of 24
    units (3 seeds, Adam at 3e-3) had 25-50 % of dead units at steps 40 and 400, and the loss
    of its twin with LeakyReLU (0.36). The narrow layer in front of a gate (squeeze and
    excitation) is left at a note for the same reason.

    ## References
    - [0] section 4.4.4 (healthy below 10 %) and pitfall 7 (10-50 % sparsity is healthy, over
      90 % of dead units is a problem)
    - Maas, Hannun & Ng (2013), "Rectifier nonlinearities improve neural network acoustic
      models"
    - Hanley & Lippman-Hand (1983), "If nothing goes wrong, is everything all right?": a unit
      silent on n samples fires on fewer than 3/n of all (95 %): 0.3 % at `min_positions`, 1 % at
      `min_positions_error`. On 255 healthy models judged on 1024 positions, 6 % had a layer
      with more than 10 % of dead units, hence only a note.
    - `steady`, our experiment of 40 steps: in 8 runs that ended where LeakyReLU did the loss
      fell by 15 to 34 times its step-to-step noise and rose by 3 % at most; where the rate
      was too large (13 runs) it rose by 14 % and more, and in 12 fell by less than 9 times.
    """

    code: ClassVar = "GL201"
    name: ClassVar = "dead-units"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("dead_fraction", "dead_positions")
    stage: ClassVar = Stage.FORWARD
    help: ClassVar = "Lower the learning rate, start biases at 0, or use LeakyReLU or GELU."

    note_fraction: float = 0.1
    max_fraction: float = 0.4
    error_fraction: float = 0.9
    min_positions: int = 1000
    min_positions_error: int = 300
    min_units: int = 10
    learned: float = 0.5
    steady: float = 10.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each rectifier with too many dead units."""
        seen = trace.of("dead_fraction")
        operations = {op.site: op for op in reversed(trace.graph.operations)}
        for site in seen.sites:
            fractions = {o.step: o.value for o in seen.at(site)}
            step = max(fractions)
            sizes = trace.of("activation_rms").at(site)
            if sizes and not math.isfinite(sizes.last):
                continue  # NaN is not above zero either
            positions = _positions(trace, site, step)
            op = operations.get(site.path)
            severity = self._severity(trace, op, fractions, step, positions)
            if severity is None:
                continue
            yield self._finding(trace, site, step, fractions, positions, severity)

    def _severity(
        self,
        trace: Trace,
        op: Operation | None,
        fractions: Mapping[int, float],
        step: int,
        positions: float,
    ) -> Severity | None:
        """Return how bad the share of dead units at `step` is, or None."""
        dead, before = fractions[step], fractions.get(0)
        units = _units(trace, op)
        chance = 0.5 + 3 * math.sqrt(0.25 / units)
        gate = op is not None and _feeds_gate(trace, op)
        certain = dead > self.error_fraction and units >= self.min_units
        if certain and positions >= self.min_positions_error and not gate:
            return Severity.ERROR
        if positions < self.min_positions or not dead > self.note_fraction:
            return None
        died = before is not None and dead - before > chance - 0.5
        many = dead > self.max_fraction and (dead > chance or died)
        if step and many and not gate and not self._learns(trace):
            return Severity.WARNING
        return Severity.NOTE

    def _learns(self, trace: Trace) -> bool:
        """Whether the loss fell by far, whatever died."""
        seen = progress(trace)
        if seen is None:
            return False
        first, late = seen
        if first > 0 and late < self.learned * first:
            return True
        rose = max(trace.of("loss").at("").training.values) > first + 0.1 * abs(first)
        return not rose and first - late > max(0.2 * abs(first), self.steady * noise(trace))

    def _finding(
        self,
        trace: Trace,
        site: Site,
        step: int,
        fractions: Mapping[int, float],
        positions: float,
        severity: Severity,
    ) -> Finding:
        limit = {
            Severity.ERROR: self.error_fraction,
            Severity.WARNING: self.max_fraction,
            Severity.NOTE: self.note_fraction,
        }[severity]
        dead = fractions[step]
        when = f"by step {step}" if step else "at step 0"
        sparse = trace.of("activation_zero_share").at(site)
        evidence = {
            "dead_fraction": dead,
            "limit": limit,
            "positions": positions,
            "firing_bound": 3 / positions,
        }
        if 0 in fractions and step:
            evidence["dead_fraction_initial"] = fractions[0]
        if sparse:
            evidence["zero_share"] = sparse.last
        return self.finding(
            site,
            f"{dead:.0%} of units never fired on {positions:.0f} samples and positions {when} "
            f"(limit {limit:.0%})",
            severity=severity,
            step=0 if fractions.get(0, 0.0) > limit else step,
            evidence=evidence,
        )


def _positions(trace: Trace, site: Site, step: int) -> float:
    return next((o.value for o in trace.of("dead_positions").at(site) if o.step == step), 0.0)


def _units(trace: Trace, op: Operation | None) -> int:
    """Return how many units the rectifier has; 16 where it is not known."""
    if op is None or len(op.shape) < 2:
        return 16
    passes = STRUCTURAL | NORMALIZATIONS | {"parameter_add", "shift", "scale"}
    fed = trace.graph.behind(op, lambda o: o.kind in passes)
    channels = len(op.shape) > 3 or any(o.kind in ("conv", "conv_transpose") for o in fed)
    return op.shape[1] if channels else op.shape[-1]


def _feeds_gate(trace: Trace, op: Operation) -> bool:
    """Whether what `op` feeds through one weight layer is a gate (squeeze and excitation)."""
    weights = [o for o in trace.graph.following(op) if o.kind in WEIGHTED]
    after = [o for w in weights for o in trace.graph.following(w)]
    return bool(after) and all(o.attributes.get("gate") for o in after)
