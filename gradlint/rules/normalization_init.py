"""Normalization layers that do not start as the identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import NORMALIZATIONS, STRUCTURAL
from gradlint.rules._chains import initial_value, why_not_initial
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_KINDS = frozenset(
    {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "LayerNorm", "GroupNorm"}
    | {"InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "RMSNorm"}
)
_BRANCH_ENDS = frozenset({"add", "shift", "parameter_add", "mul", "matmul", "attention"})
"""What may read a norm that starts small on purpose: a residual add, a gate, attention."""


@dataclass(frozen=True)
class NormalizationInit(Rule):
    """A normalization whose scale γ or shift β starts far from 1 or 0.

    ## What it does
    Flags a normalization layer of torch's whose γ, at step 0, has an RMS below `min_scale`
    or above `max_scale`, or whose β has an RMS above `max_shift`.

    ## Why is this bad?
    A normalization keeps the signal at size one only while γ is 1. Initializing *all*
    parameters of a model with small random numbers overwrites γ, and each normalization then
    shrinks the signal and its gradient by that factor.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4),
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.08, 0.08)
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4),
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.uniform_(parameter, -0.08, 0.08)
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A last normalization of a residual branch starts at zero or small on purpose, one in front
    of a gate or of attention logits at a temperature: a γ is not judged where an add, a
    product or attention reads the layer. Classes of the user's own that compute (1 + γ)·x
    start at γ = 0: only torch's classes are judged, and only while their output is as small
    or as large as γ says, nor is a small γ that the first batch went past (stochastic depth).
    DCGAN's γ ~ N(1, 0.02²) is inside the limits.

    ## References
    - [0] section 4.3.3: γ = 1, β = 0
    - Ioffe & Szegedy (2015), "Batch normalization", section 3
    - Goyal et al. (2017), "Accurate, large minibatch SGD": γ = 0 on a branch's last norm
    - Our experiment (`tests/calibration/normalization_scale.py`; 8 convolutions with
      BatchNorm, digits, 250 steps): from γ = 1, 0.5, 0.25, 0.1, 0.02 Adam reaches a loss of
      0.12, 0.38, 0.72, 1.0, 1.3 and SGD is alike; from 2, 4 and 10 no more than from 1.
      The limit on β is our choice.
    """

    code: ClassVar = "GL109"
    name: ClassVar = "normalization-init"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("weight_rms",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Start every normalization at weight 1 and bias 0: leave parameters of one dimension "
        "out of custom initialization."
    )

    min_scale: float = 0.5
    max_scale: float = 10.0
    max_shift: float = 1.0

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each normalization that starts elsewhere."""
        for path, facts in trace.modules.items():
            if facts.kind not in _KINDS or facts.ours or facts.calls == 0:
                continue
            prefix = f"{path}." if path else ""
            scale = initial_value(trace, "weight_rms", f"{prefix}weight")
            shift = initial_value(trace, "weight_rms", f"{prefix}bias")
            small = scale is not None and scale < self.min_scale
            large = scale is not None and scale > self.max_scale
            if (small or large) and self._acts(trace, path, large=large):
                name, value, limit = "weight", scale, self.max_scale if large else self.min_scale
                what = f"scale has an RMS of {scale:.2g} where 1 is the identity"
            elif shift is not None and shift > self.max_shift:
                name, value, limit = "bias", shift, self.max_shift
                what = f"shift has an RMS of {shift:.2g} where 0 is the identity"
            else:
                continue
            yield self.finding(
                path,
                f"{facts.kind}'s {what}, at step 0 (limit {limit:.2g})",
                trace=trace,
                parameter=f"{prefix}{name}",
                step=0,
                evidence={"rms": value, "limit": limit},
            )

    def _acts(self, trace: Trace, path: str, *, large: bool) -> bool:
        """Whether the scale is what the signal feels, and no branch's deliberate start."""
        passes = STRUCTURAL | {"scale", "mask"}
        ops = [o for o in trace.graph if o.module == path]
        if len(trace.graph) and not ops and not large:
            return False  # the graph's batch went past it: what reads it is not known
        for op in (o for o in ops if o.kind in NORMALIZATIONS):
            following = trace.graph.ahead(op, lambda o: o.kind in passes)
            if any(o.kind in _BRANCH_ENDS for o in following):
                return False
        spread = initial_value(trace, "activation_std", path)
        if spread is None:
            return True
        return spread > self.max_scale if large else spread < self.min_scale
