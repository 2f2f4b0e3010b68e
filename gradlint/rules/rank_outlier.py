"""A rank whose numbers are unlike the others'."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import RankFacts, Trace

_WORDS = {"loss": "loss", "activation_grad_norm": "activation gradient's norm"}


@dataclass(frozen=True)
class RankOutlier(Rule):
    """One rank of a distributed run with a loss or gradients unlike all others'.

    ## What it does
    Compares what every rank measured before gradients were averaged: the median over the run
    of its loss and of its activation gradients' norm. Flags a rank that is more than
    `max_ratio` times above or below the median of the others, while those agree within a
    factor `max_spread`. Two ranks have to differ by `max_ratio` from each other.

    ## Why is this bad?
    Averaged gradients hide it: the rank that reads other data, scales it otherwise, or has
    lost its shard pulls the model away for all, or gives nothing, and the logs of rank 0 show
    none of it.

    ## Example
    ```python
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel as DDP

    dist.init_process_group("gloo")
    model = DDP(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    for step in range(20):
        x = torch.randn(32, 8)
        scale = 255 if dist.get_rank() == 1 else 1  # normalized on rank 0 only
        optimizer.zero_grad()
        (model(scale * x) - x[:, :1]).square().mean().backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel as DDP

    dist.init_process_group("gloo")
    model = DDP(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    for step in range(20):
        x = torch.randn(32, 8)
        optimizer.zero_grad()
        (model(x) - x[:, :1]).square().mean().backward()
        optimizer.step()
    ```

    ## When it is wrong
    Ranks that train different tasks, or read data of different kinds on purpose. Once the loss
    is below `min_loss` of its start on all ranks, ratios of what is left say nothing. Ranks
    with a loss that is not finite are left to GL501.

    ## References
    - Medians of ranks that draw from the same data lie within their sampling error, some
      percent; data sorted by kind over ranks makes factors of 2 to 3: `max_ratio` and
      `max_spread` are our choice, well apart from that
    """

    code: ClassVar = "GL902"
    name: ClassVar = "rank-outlier"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.DATA
    help: ClassVar = "Compare a batch of that rank with one of another: data, scaling, and masks."

    max_ratio: float = 10.0
    max_spread: float = 3.0
    min_loss: float = 0.01

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there are no ranks to compare."""
        ranks = _ranks(trace)
        if ranks is None or ranks.world < 2:
            return "not a distributed run"
        return None if len(ranks.reported) > 1 else "one rank alone reported"

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding: the metric nearest the data speaks for the others."""
        ranks = _ranks(trace)
        if ranks is None or self._converged(trace, ranks):
            return
        for metric in sorted(ranks.local, key=lambda name: (name != "loss", name)):
            values = ranks.local[metric]
            if len(values) != len(ranks.reported) or not all(map(math.isfinite, values)):
                continue
            found = self._outlier(values)
            if found is None:
                continue
            index, ratio = found
            rank = ranks.reported[index]
            others = [r for r in ranks.reported if r != rank]
            against = f"rank {others[0]}" if len(others) == 1 else f"the other {len(others)} ranks"
            times = f"{_times(ratio)} that of {against}"
            yield self.finding(
                None,
                f"{_WORDS.get(metric, metric)} on rank {rank} is {times} "
                f"(limit: a factor of {self.max_ratio:g})",
                evidence={
                    "metric": metric,
                    "rank": rank,
                    "ratio": ratio,
                    "limit": self.max_ratio,
                    "values": {str(r): v for r, v in zip(ranks.reported, values, strict=True)},
                },
            )
            return

    def _converged(self, trace: Trace, ranks: RankFacts) -> bool:
        """Whether next to nothing is left of the loss anywhere."""
        start = trace.of("loss").at("").initial
        losses = ranks.local.get("loss", ())
        return bool(losses) and all(
            abs(value) < self.min_loss * abs(start.median) for value in losses
        )

    def _outlier(self, values: tuple[float, ...]) -> tuple[int, float] | None:
        """Return the index of the one that is unlike the others, and by which factor."""
        sizes = [abs(value) for value in values]
        found: list[tuple[float, int, float]] = []
        for index, size in enumerate(sizes):
            others = [s for i, s in enumerate(sizes) if i != index]
            middle = statistics.median(others)
            if middle == 0 or max(others) > self.max_spread * min(others):
                continue
            ratio = size / middle
            apart = max(ratio, 1 / ratio) if ratio > 0 else math.inf
            if apart > self.max_ratio:
                found.append((apart, index, ratio))
        if not found:
            return None
        # Of two ranks each is unlike the other; the larger one is where something is too much.
        by_size = len(values) == 2
        _, index, ratio = max(found, key=lambda f: f[2] if by_size else f[0])
        return index, ratio


def _ranks(trace: Trace) -> RankFacts | None:
    return trace.facts.loop.ranks if trace.facts.loop is not None else None


def _times(ratio: float) -> str:
    if ratio == 0:
        return "zero, unlike"
    return f"{ratio:.2g} times"
