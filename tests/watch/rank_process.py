"""One rank of a distributed run, started by the tests: trains, watches, writes what it saw."""

from __future__ import annotations

import copy
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradlint.errors import GradientHealthError
from gradlint.watching import Watcher

STEPS = 9
LIMIT = 0.3
"""Of clipping: the first steps' norms are larger, the others' are smaller."""

METRICS = (
    "loss", "total_gradient_norm", "backward_gradient_norm", "norm_before_clipping",
    "gradient_norm", "weight_norm", "gradient_ratio", "update_to_weight_ratio",
)  # fmt: skip

Wrap = Callable[[nn.Module], nn.Module]


def net(seed: int = 0) -> nn.Module:
    """A model one of whose layers is too narrow to be split."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1), nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3)
    )


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(64, 12), torch.randint(0, 3, (64,))


def steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, world: int, count: int = STEPS
) -> Iterator[int]:
    """Train on this rank's share of the data; yields before each update."""
    inputs, targets = (tensor[rank::world] for tensor in data())
    for step in range(1, count + 1):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        yield step
        nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
        optimizer.step()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2)


def numbers(watcher: Watcher) -> dict[str, Any]:
    """Return a trace's numbers: by metric, then path, then step."""
    trace = watcher.trace()
    found: dict[str, Any] = {}
    for metric in METRICS:
        for seen in trace.of(metric).training:
            found.setdefault(metric, {}).setdefault(seen.site.path, {})[str(seen.step)] = seen.value
    loop = trace.facts.loop
    assert loop is not None
    return {
        "numbers": found,
        "failure": repr(watcher.loop.failure),
        "ranks": None if loop.ranks is None else asdict(loop.ranks),
        "kinds": sorted({facts.kind for facts in trace.modules.values()}),
        "parameters": sorted(trace.parameters),
        "shapes": sorted(list(p.shape) for p in trace.parameters.values()),
        "graph": [[op.kind, *sorted(op.parameters)] for op in trace.graph if op.kind != "clone"],
        "steps": loop.steps,
        "codes": {f.code: f.message for f in watcher.report.findings},
        "notices": list(watcher.report.notices),
    }


def hashed(model: nn.Module) -> list[list[float]]:
    return [
        getattr(p, "_local_tensor", p).detach().reshape(-1).tolist() for p in model.parameters()
    ]


# -- what ranks do ------------------------------------------------------------------------


def sharded(model: nn.Module, mesh: Any = None) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    for part in model:  # type: ignore[attr-defined]
        if isinstance(part, nn.Linear):
            fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def hybrid(model: nn.Module) -> nn.Module:
    """Copies of a model on two ranks, each "split" into one part."""
    from torch.distributed.device_mesh import init_device_mesh

    return sharded(model, init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "parts")))


def bucketed(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def unwatched_elsewhere(rank: int, world: int, wrap: Wrap) -> dict[str, Any]:
    """Only the first rank is watched: whoever communicates alone hangs."""
    model = wrap(net())
    optimizer = adam(model)
    watcher = Watcher(model, optimizer, every=1) if rank == 0 else None
    with watcher or nullcontext():
        for _ in steps(model, optimizer, rank, world):
            pass
    return {} if watcher is None else numbers(watcher)


def compared(rank: int, world: int, wrap: Wrap, *, before: bool = False) -> dict[str, Any]:
    """Train bare, then watched; `before` watches the model before it is wrapped."""
    bare = wrap(net())
    for _ in steps(bare, adam(bare), rank, world):
        pass
    model = net()
    watcher = Watcher(model, every=1) if before else None
    if watcher is not None:
        watcher.start()
    wrapped = wrap(model)
    optimizer = adam(wrapped)
    if watcher is None:
        watcher = Watcher(wrapped, optimizer, every=1).start()
    for _ in steps(wrapped, optimizer, rank, world):
        pass
    watcher.stop()
    same = hashed(bare) == hashed(wrapped)
    return {**numbers(watcher), "same": same}


def perturbed(rank: int, world: int, wrap: Wrap, when: int = 5) -> dict[str, Any]:
    """One rank changes one number of one weight after the backward of step `when`."""
    model = wrap(net())
    optimizer = adam(model)
    with Watcher(model, optimizer) as watcher:
        for step in steps(model, optimizer, rank, world, 20):
            if step == when and rank == 1:
                part = next(iter(model.parameters()))
                with torch.no_grad():
                    getattr(part, "_local_tensor", part)[0, 0] += 1e-4
    return numbers(watcher)


def by_hand(rank: int, world: int, *, seed: int, reduce: bool) -> dict[str, Any]:
    """Gradients averaged by the script itself, or not at all."""
    model = net(seed)
    optimizer = adam(model)
    with Watcher(model, optimizer) as watcher:
        for _ in steps(model, optimizer, rank, world):
            for parameter in model.parameters() if reduce else ():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= world
    return numbers(watcher)


def lone_nan(rank: int, world: int) -> dict[str, Any]:
    """One rank's data are not finite; the sum of gradients spreads it."""
    model = DistributedDataParallel(net())
    optimizer = adam(model)
    inputs, targets = (tensor[rank::world].clone() for tensor in data())
    with Watcher(model, optimizer) as watcher:
        for step in range(1, 9):
            if step == 6 and rank == 1:
                inputs[0, 0] = float("nan")
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    found = numbers(watcher)
    events = watcher.trace().facts.events
    found["events"] = [(e.step, e.detail.get("phase"), e.detail.get("rank")) for e in events]
    found["numbers"] = {}
    return found


def scenarios() -> dict[str, Callable[[int, int], dict[str, Any]]]:
    ddp = DistributedDataParallel
    return {
        "ddp": lambda r, w: compared(r, w, ddp),
        "ddp-bucket-view": lambda r, w: compared(r, w, bucketed),
        "ddp-watched-before": lambda r, w: compared(r, w, ddp, before=True),
        "fsdp": lambda r, w: compared(r, w, sharded),
        "fsdp-watched-before": lambda r, w: compared(r, w, sharded, before=True),
        "hsdp": lambda r, w: compared(r, w, hybrid),
        "ddp-alone": lambda r, w: unwatched_elsewhere(r, w, ddp),
        "fsdp-alone": lambda r, w: unwatched_elsewhere(r, w, sharded),
        "ddp-perturbed": lambda r, w: perturbed(r, w, ddp),
        "ddp-perturbed-at-once": lambda r, w: perturbed(r, w, ddp, when=1),
        "hsdp-perturbed": lambda r, w: perturbed(r, w, hybrid),
        "seeds-reduced": lambda r, w: by_hand(r, w, seed=r, reduce=True),
        "seeds-apart": lambda r, w: by_hand(r, w, seed=r, reduce=False),
        "apart": lambda r, w: by_hand(r, w, seed=0, reduce=False),
        "lone-nan": lone_nan,
        "stops-at-6": lambda r, w: stops(r, w, when=6, fault=True),
        "stops-at-20": lambda r, w: stops(r, w, when=20, fault=False),
    }


def stops(rank: int, world: int, *, when: int, fault: bool) -> dict[str, Any]:
    """One rank has reason to end the loop: its data, or what it asks for of its own accord."""
    model = DistributedDataParallel(net())
    optimizer = adam(model)
    inputs, targets = (tensor[rank::world].clone() for tensor in data())
    watcher = Watcher(model, optimizer, fail_on="error")
    made, raised = 0, ""
    try:
        with watcher:
            for step in range(1, 61):
                if step == when and rank == 1 and fault:
                    inputs[0, 0] = float("nan")
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                if step == when and rank == 1 and not fault:
                    watcher.loop.ranks.postpones_stop(step)
                made = step
                optimizer.step()
    except GradientHealthError as error:
        raised = str(error)[:40]
    return {"failure": repr(watcher.loop.failure), "made": made, "raised": raised}


def dies(rank: int, world: int) -> dict[str, Any]:
    """The second rank dies inside the loop."""
    model = DistributedDataParallel(net())
    optimizer = adam(model)
    watcher = Watcher(model, optimizer)
    try:
        with watcher:
            for step in steps(model, optimizer, rank, world, 30):
                if step == 12 and rank == 1:
                    os._exit(7)
    except RuntimeError as error:  # torch's own, of the lost connection
        return {**numbers(watcher), "raised": str(error)}
    return numbers(watcher)


def main() -> None:
    what, rank, world, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    found: dict[str, Any] = {}
    for name, scenario in scenarios().items() if what == "all" else [(what, dies)]:
        try:
            found[name] = scenario(rank, world)
        except NotImplementedError as error:  # a collective that gloo does not have
            found[name] = {"unsupported": str(error)}
    (folder / f"{rank}.json").write_text(json.dumps(copy.copy(found)), encoding="utf-8")
    if what == "all":
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
