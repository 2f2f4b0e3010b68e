"""BatchNorm's running statistics far from what it is given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, Trace


@dataclass(frozen=True)
class StaleBatchStatistics(Rule):
    """BatchNorm whose running statistics are not those of its batches.

    ## What it does
    At the end of the watched training compares running mean and variance of each BatchNorm in
    training mode with those of batches. Flags a layer in which half of the channels are off
    by more than `max_gap` (standard deviations of the mean, or the logarithm of the ratio of
    the standard deviations). Under `check` what is left of the zeros and ones that the
    statistics began with is taken off first, since forty steps are not the training; but
    where the momentum is below `min_momentum` they never get away from there, and
    `max_gap_unmoved` holds. In a watched loop nothing is taken off; `min_steps` steps are
    needed unless the momentum is that small, and the `min_observations` last looks of its last
    three quarters all have to be beyond the limit.

    ## Why is this bad?
    Training normalizes with the batch, evaluation with the running statistics. Where they
    differ, another function is evaluated than was trained: training looks well, and
    validation is bad or random.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32, momentum=0.0), nn.ReLU(), nn.Linear(32, 3)
    )
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32, momentum=0.1), nn.ReLU(), nn.Linear(32, 3)
    )
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ```

    ## When it is wrong
    Silent are: layers in evaluation mode (frozen in fine-tuning: they train with what they
    evaluate with), those called more than once in a forward (the running statistics are of
    all calls), discriminators and other parts of loops with several optimizers (they see true
    and made batches in turns), momentum None (an average over the whole training, early
    batches included), and gaps within the error of so few samples. Statistics that are
    recomputed after the training, before evaluation, need not be right here.

    ## References
    - Reference [0], "Common pitfalls", 4: choose the momentum for fine-tuning
    - pytorch/pytorch#4741: running statistics that do not fit are why evaluation differs
    - `max_gap`: of the healthy trainings with BatchNorm in tests/zoo the largest gap after 40
      steps is 0.4; `max_gap_unmoved`: torch's initialization makes pre-activations of 0.58,
      which is 0.55 away from one
    - `min_observations`: full looks grow apart by a factor of two at most, so that two are in
      the last three quarters of a run of any length
    """

    code: ClassVar = "GL806"
    name: ClassVar = "stale-batch-statistics"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.PROGRESS
    help: ClassVar = (
        "Train with a BatchNorm momentum of 0.1, larger for short fine-tuning, or recompute the "
        "statistics with torch.optim.swa_utils.update_bn before evaluation."
    )

    max_gap: float = 1.0
    max_gap_unmoved: float = 0.25
    min_momentum: float = 1e-4
    min_steps: int = 50
    min_observations: int = 2

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no running statistics were compared."""
        if "batch-statistics" in trace.facts.probes or len(trace.of("batch_statistics_gap")):
            return None
        return "no running statistics were compared with a batch's"

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each BatchNorm with stale statistics."""
        for path, seen in trace.facts.probes.get("batch-statistics", {}).items():
            yield from self._probed(trace, path, seen)
        yield from self._watched(trace)

    def _probed(self, trace: Trace, path: str, seen: Mapping[str, Any]) -> Iterator[Finding]:
        momentum, samples = seen["momentum"], int(seen["samples"])
        if momentum is None:
            return
        unmoved = momentum < self.min_momentum
        gap = float(seen["gap"] if unmoved else seen["settled"])
        limit = self.max_gap_unmoved if unmoved else self.max_gap
        if gap > max(limit, _error(samples)):
            yield self._finding(trace, path, gap, limit, momentum, unmoved=unmoved)

    def _watched(self, trace: Trace) -> Iterator[Finding]:
        """Yield what the end of a watched loop shows."""
        loop = trace.facts.loop
        if loop is None or loop.ended or loop.streams > 1:
            return
        late = trace.of("batch_statistics_gap").since(loop.steps // 4 + 1)
        for site in late.sites:
            facts = trace.modules.get(site.module or "")
            values = late.at(site).values[-self.min_observations :]
            if facts is None or not facts.training or facts.calls > 1:
                continue
            momentum = facts.options.get("momentum")
            if len(values) < self.min_observations or not isinstance(momentum, (int, float)):
                continue
            unmoved = momentum < self.min_momentum
            if loop.steps < self.min_steps and not unmoved:
                continue
            gap = min(values)
            limit = self.max_gap_unmoved if unmoved else self.max_gap
            if gap > max(limit, _error(_samples(facts))):
                yield self._finding(trace, site.path, gap, limit, momentum, unmoved=unmoved)

    def _finding(
        self, trace: Trace, path: str, gap: float, limit: float, momentum: float, *, unmoved: bool
    ) -> Finding:
        why = f"with a momentum of {momentum:g} they stay where they began" if unmoved else ""
        return self.finding(
            path,
            f"running statistics are {gap:.2g} standard deviations from the batches' in half of "
            f"the channels (limit {limit:g})" + (f": {why}" if why else ""),
            trace=trace,
            evidence={"gap": gap, "limit": limit, "momentum": momentum},
        )


def _samples(facts: ModuleFacts) -> int:
    return facts.input_shape[0] if facts.input_shape else 1


def _error(samples: int) -> float:
    """Three times the error of a mean of so many samples, in standard deviations.

    Positions of one sample are not counted: they resemble each other.
    """
    return 3 / math.sqrt(max(samples, 1))
