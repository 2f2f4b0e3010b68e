"""Variants timed in turns, and compared block by block with the one that nobody watches."""

from __future__ import annotations

import copy
import gc
import math
import statistics
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.watching.cadence import FIRST_LIGHT, Look
from gradlint.watching.loop import Loop
from tests.benchmarks.variants import Gradlint, Naive, Variant, Wandb, wandb_or_none
from tests.benchmarks.workloads import Workload

BARE, AGAIN, DEFAULT, EVERY, NAIVE, WANDB = (
    "bare", "bare again", "gradlint", "gradlint every=1", "hooks with .item()", "wandb.watch",
)  # fmt: skip

SLOW = (NAIVE, WANDB)
"""Variants that take a third of the rotations: they are not close to call."""


@dataclass(frozen=True)
class Cost:
    """What one variant costs on one workload."""

    variant: str
    ratio: float
    low: float
    high: float
    """Median of the blocks' ratios to bare, and its 95 % interval."""
    own: float | None = None
    """gradlint's own time as a share of the step."""
    first: float | None = None
    """Seconds that gradlint took of the first steps."""
    full: float | None = None
    """Seconds of a full look."""
    held: int | None = None
    """Bytes that gradlint holds at the end, and looked-at steps they are of."""
    looked_at: int | None = None


@dataclass(frozen=True)
class Result:
    """All variants on one workload."""

    workload: str
    milliseconds: float
    """CPU time of a bare step, at its median block."""
    costs: list[Cost]


FIRST = 330
"""Steps after which the default is timed: those that it looks at whatever that takes come at 80,
160 and 320 beside the first 40, and the next one at 640."""


def measure(workload: Workload, *, block: int = 0, blocks: int = 0, first: int = FIRST) -> Result:
    """Time every variant of `workload`, interleaved.

    Args:
        workload: What is trained.
        block: Steps of a block; 0 takes the workload's.
        blocks: Rotations; 0 takes the workload's.
        first: Steps that gradlint makes before it is timed.
    """
    block, blocks = block or workload.block, blocks or workload.blocks
    torch.manual_seed(0)
    model, inputs, targets = workload.build()
    variants = _variants(model, inputs, targets)
    try:
        for name, variant in variants.items():
            warm = {DEFAULT: first, EVERY: first}.get(name, 6)
            variant.block(min(first, warm))
            if isinstance(variant, Gradlint) and name == EVERY:
                # As after a thousand steps, where one in five hundred is looked at in full.
                variant.loop.cadence._next_full = sys.maxsize
        before = {n: (v.loop.own, v.wall) for n, v in variants.items() if isinstance(v, Gradlint)}
        seconds = _rotate(variants, block, blocks)
    finally:
        for variant in variants.values():
            variant.close()
    bare = seconds[BARE]
    costs = []
    for name, variant in variants.items():
        ratios = [own / other for own, other in zip(seconds[name], bare, strict=True) if own]
        median, low, high = interval(ratios)
        if not isinstance(variant, Gradlint):
            costs.append(Cost(name, median, low, high))
            continue
        own, wall = before[name]
        costs.append(
            Cost(
                name, median, low, high,
                own=(variant.loop.own - own) / (variant.wall - wall),
                first=own if name == DEFAULT else None,
                full=variant.loop.cadence.cost[Look.FULL] if name == DEFAULT else None,
                held=held(variant.loop), looked_at=variant.loop.looked_at,
            )
        )  # fmt: skip
    return Result(workload.name, 1e3 * statistics.median(bare) / block, costs)


def _variants(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Variant]:
    makers: dict[str, Callable[[nn.Module, Tensor, Tensor], Variant]] = {
        BARE: Variant,
        AGAIN: Variant,
        DEFAULT: lambda *given: Gradlint(*given, every="auto"),
        EVERY: lambda *given: Gradlint(*given, every=1),
        NAIVE: Naive,
    }
    wandb = wandb_or_none()
    if wandb is not None:
        makers[WANDB] = lambda *given: Wandb(*given, wandb=wandb)
    copies = {name: copy.deepcopy(model) for name in makers}
    return {name: make(copies[name], inputs, targets) for name, make in makers.items()}


def _rotate(variants: dict[str, Variant], block: int, blocks: int) -> dict[str, list[float]]:
    """Return the seconds of each block; 0 where a slow variant sat out."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(blocks):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            out = name in SLOW and turn % 3
            seconds[name].append(0.0 if out else variants[name].block(block))
    return seconds


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval, by ranks."""
    ordered = sorted(values)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)
    low = max(0, math.floor(count / 2 - reach))
    high = min(count - 1, math.ceil(count / 2 + reach) - 1)
    return statistics.median(ordered), ordered[low], ordered[max(low, high)]


_NOT_OURS = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType,
    nn.Module, nn.Parameter, torch.optim.Optimizer,
)  # fmt: skip


def held(loop: Loop) -> int:
    """Return the bytes of what a loop holds, tensors included; nothing of the user's."""
    total, seen, waiting = 0, set[int](), list[Any]([loop])
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _NOT_OURS):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        if isinstance(thing, Tensor):
            total += thing.numel() * thing.element_size()
        else:
            waiting += gc.get_referents(thing)
    return total


__all__ = ["FIRST_LIGHT", "Cost", "Result", "held", "interval", "measure"]
