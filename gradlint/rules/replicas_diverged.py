"""Ranks that train different models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ReplicasDiverged(Rule):
    """Replicas of one model whose parameters are no longer the same on all ranks.

    ## What it does
    Compares a hash of every replicated parameter over the ranks of a distributed run, and
    names those that differ by a single bit.

    ## Why is this bad?
    Data-parallel training averages gradients and trusts that every rank adds the same update
    to the same weights. Replicas that differ stay different: the averaged gradient belongs to
    none of them, and the checkpoint, which one rank writes, is a model that was never
    evaluated by the others.

    ## Example
    ```python
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel as DDP

    dist.init_process_group("gloo")
    model = DDP(nn.Linear(8, 1))  # has copied rank 0's weights to all
    if dist.get_rank() == 0:
        nn.init.zeros_(model.module.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(20):
        optimizer.zero_grad()
        model(torch.randn(32, 8)).square().mean().backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel as DDP

    dist.init_process_group("gloo")
    net = nn.Linear(8, 1)
    nn.init.zeros_(net.weight)
    model = DDP(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(20):
        optimizer.zero_grad()
        model(torch.randn(32, 8)).square().mean().backward()
        optimizer.step()
    ```

    ## When it is wrong
    Parameters that are sharded, or that each rank owns for itself (experts, stages of a
    pipeline), are not compared. Methods that let replicas drift between rare averagings
    (local SGD) keep them apart on purpose.

    ## References
    - torch documentation, "DistributedDataParallel": parameters are broadcast once, when it is
      constructed, and must not be changed on single ranks after that
    - Li et al. (2020), "PyTorch distributed: experiences on accelerating data parallel
      training", section 3: same initial weights and same gradients keep replicas equal
    """

    code: ClassVar = "GL901"
    name: ClassVar = "replicas-diverged"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = (
        "Load and initialize weights on every rank before wrapping the model, and make the same "
        "update, with averaged gradients, on every rank."
    )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there are no ranks to compare."""
        return no_ranks(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each parameter that is not the same everywhere."""
        ranks = trace.facts.loop.ranks if trace.facts.loop is not None else None
        if ranks is None:
            return
        step = ranks.diverged_step
        since = "" if step is None else f", first seen at step {step}"
        for path in ranks.diverged:
            facts = trace.parameters.get(path)
            yield self.finding(
                facts.module if facts is not None else path.rpartition(".")[0],
                f"{path} is not the same on all {ranks.world} ranks{since}",
                trace=trace,
                parameter=path,
                step=step,
                evidence={"world": ranks.world, "diverged": len(ranks.diverged)},
            )


def no_ranks(trace: Trace) -> str | None:
    """Return why ranks cannot be compared, or None."""
    loop = trace.facts.loop
    ranks = loop.ranks if loop is not None else None
    if ranks is None or ranks.world < 2:
        return "not a distributed run"
    return None
