"""Prints what watching costs, as a table in Markdown."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import datetime
import platform
import time

import torch

from tests.benchmarks.measuring import AGAIN, BARE, FIRST, Result, measure
from tests.benchmarks.variants import wandb_or_none
from tests.benchmarks.workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name has this in it")
    parser.add_argument("--blocks", type=int, default=0, help="rotations through the variants")
    parser.add_argument("--block", type=int, default=0, help="steps of each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    results = []
    for workload in WORKLOADS:
        if given.only in workload.name:
            result = measure(workload, block=given.block, blocks=given.blocks)
            results.append(result)
            print(f"{time.perf_counter() - started:.0f} s: {workload.name}", flush=True)
    print()
    print(table(results))
    wandb = wandb_or_none()
    print(
        f"\n{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread, "
        f"load {os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, torch "
        f"{torch.__version__}, " + (f"wandb {wandb.__version__}." if wandb else "no wandb.")
    )


def table(results: list[Result]) -> str:
    """Return a table in Markdown: one row for each variant of each workload."""
    lines = [
        "| model (CPU time of a bare step) | watched by | step, bare = 1 (95 % interval) "
        f"| gradlint's own time | first {FIRST} steps | a full look | held |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        label = f"{result.workload} ({result.milliseconds:.3g} ms)"
        for cost in result.costs:
            if cost.variant == BARE:
                continue
            name = "nobody, again" if cost.variant == AGAIN else cost.variant
            own = "" if cost.own is None else f"{100 * cost.own:.1f} %"
            first = "" if cost.first is None else f"{1e3 * cost.first:.0f} ms"
            full = "" if cost.full is None else f"{1e3 * cost.full:.0f} ms"
            held = ""
            if cost.held is not None:
                held = f"{cost.held / 2**20:.1f} MiB of {cost.looked_at} steps"
            ratio = f"{cost.ratio:.2f} ({cost.low:.2f}–{cost.high:.2f})"
            lines.append(f"| {label} | {name} | {ratio} | {own} | {first} | {full} | {held} |")
            label = ""
    return "\n".join(lines)


if __name__ == "__main__":
    main()
