"""Ranks: what a tensor of a distributed run is on this rank, without asking the others.

Nothing here communicates: a single operation on a DTensor may, so only its local part is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CHUNK = 1 << 22
"""Entries summed at a time; they are copied as 64-bit integers."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MIXED_IN = ("FSDPModule", "ReplicateModule")


@dataclass(frozen=True, slots=True)
class Share:
    """Which ranks hold the parts of a distributed tensor, and which hold the same as this one."""

    parts: tuple[int, ...]
    copies: tuple[int, ...]


def here(tensor: Tensor) -> Tensor:
    """Return this rank's part of a distributed tensor; any other as it is."""
    part = getattr(tensor, "_local_tensor", None)
    return part if isinstance(part, Tensor) else tensor


def is_distributed(tensor: Tensor) -> bool:
    """Whether `tensor` is a DTensor: operations on it may communicate."""
    return isinstance(getattr(tensor, "_local_tensor", None), Tensor)


def class_of(module: object) -> type[Any]:
    """Return the class the user wrote; `fully_shard` makes a subclass of it in place."""
    kind = type(module)
    while len(kind.__bases__) == 2 and kind.__bases__[0].__name__ in _MIXED_IN:
        kind = kind.__bases__[1]
    return kind


def rank_and_world() -> tuple[int, int]:
    """Return the number of this process among how many, as far as can be known."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if rank.isdecimal() and world.isdecimal():
        return int(rank), int(world)
    return 0, 1


def share_of(tensor: Tensor) -> Share | None:
    """Return how a DTensor is laid out over ranks; None for any other tensor."""
    mesh: Any = getattr(tensor, "device_mesh", None)
    placements: Any = getattr(tensor, "placements", None)
    place = mesh.get_coordinate() if mesh is not None and placements is not None else None
    if place is None:
        return None
    split = [not p.is_replicate() for p in placements]
    ranks = mesh.mesh.tolist()
    return Share(
        tuple(
            sorted(_along(ranks, [None if s else at for s, at in zip(split, place, strict=True)]))
        ),
        tuple(
            sorted(_along(ranks, [at if s else None for s, at in zip(split, place, strict=True)]))
        ),
    )


def _along(ranks: Any, place: Sequence[int | None]) -> list[int]:
    """Return the ranks of a mesh at `place`; None stands for every coordinate."""
    if not place:
        return [ranks]
    first, rest = place[0], place[1:]
    chosen = ranks if first is None else [ranks[first]]
    return [rank for inner in chosen for rank in _along(inner, rest)]


def replicas_of(model: nn.Module) -> tuple[int, ...]:
    """Return the ranks whose parameters DistributedDataParallel keeps the same as this one's.

    None are kept the same where a communication hook averages parameters instead (local SGD).
    """
    hooks = getattr(model, "_comm_hooks", None) or ()
    if any("local" in getattr(hook, "__name__", "").lower() for hook, *_ in hooks):
        return ()
    try:
        return tuple(dist.get_process_group_ranks(vars(model).get("process_group")))
    except (RuntimeError, ValueError, KeyError, TypeError):  # its group was destroyed
        return ()


def can_be_hashed(tensor: Tensor) -> bool:
    """Whether `bits` can read a tensor."""
    part = here(tensor)
    plain = part.layout is torch.strided and not part.is_meta and not part.is_nested
    return plain and not part.is_quantized and not isinstance(part, nn.UninitializedParameter)


def bits(tensor: Tensor) -> Tensor:
    """Return two sums over the bits of a tensor's entries, int64, on its device.

    Integer sums wrap around and do not depend on the order of addition: equal tensors have
    equal sums on any device. The second sum weighs each entry with its position. A single
    entry that differs changes the first.
    """
    part = here(tensor.detach())
    if part.is_complex():
        part = torch.view_as_real(part)
    entries = part.reshape(-1).view(_INTEGERS[part.element_size()])
    count = entries.numel()
    places = torch.arange(1, min(count, CHUNK) + 1, device=entries.device)
    plain = torch.zeros((), dtype=torch.int64, device=entries.device)
    weighted = torch.zeros_like(plain)
    for start in range(0, count, CHUNK):
        chunk = entries[start : start + CHUNK].to(torch.int64)
        total = chunk.sum()
        plain = plain + total
        weighted = weighted + (chunk * places[: chunk.numel()]).sum() + start * total
    return torch.stack([plain, weighted])


def pieces(sums: Tensor) -> Tensor:
    """Return 64-bit integers as four numbers each that any float holds exactly."""
    return torch.stack([(sums >> shift) & 0xFFFF for shift in (0, 16, 32, 48)], dim=-1)


def whole(numbers: Sequence[float]) -> tuple[int, ...]:
    """Return the integers (as unsigned ones) that `pieces` took apart."""
    return tuple(
        sum(int(number) << 16 * i for i, number in enumerate(numbers[at : at + 4]))
        for at in range(0, len(numbers), 4)
    )
