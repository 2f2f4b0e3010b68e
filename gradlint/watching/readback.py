"""Readback: numbers come to the host when they are ready, not when they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Taker = Callable[[list[float]], None]

MAX_WAITING = 64
"""Copies on their way at most; a host that runs further ahead of its device waits for one."""


class Readback:
    """Copies of scalars on their way to the host.

    On the CPU they are there at once, without a synchronization. On another device each
    device's scalars are stacked and copied into pinned memory behind the kernels that compute
    them; the host takes them once an event says that the copy is done.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[list[tuple[list[int], Tensor]], list[Any], list[int], Taker]] = (
            deque()
        )

    def submit(self, tensors: Sequence[Tensor], take: Taker) -> None:
        """Hand all entries of `tensors` to `take` as floats, now or at a later `poll`."""
        places: dict[torch.device, list[int]] = {}
        for index, tensor in enumerate(tensors):
            places.setdefault(tensor.device, []).append(index)
        at_once = not self._waiting and all(device.type == "cpu" for device in places)
        copies: list[tuple[list[int], Tensor]] = []
        events: list[Any] = []
        for device, indices in places.items():
            dtype = torch.float32 if device.type == "mps" else torch.float64
            parts = [_flat(tensors[i]) for i in indices]
            if at_once and all(part.is_floating_point() for part in parts):
                # Whatever they are, the host's floats are float64.
                stacked = parts[0] if len(parts) == 1 else torch.cat(parts)
            elif len(parts) == 1:
                stacked = parts[0].to(dtype)
            elif all(part.is_floating_point() for part in parts):
                stacked = torch.cat(parts).to(dtype)  # in the widest of their types
            else:
                stacked = torch.cat([part.to(dtype) for part in parts])
            if device.type == "cuda":
                host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
                host.copy_(stacked, non_blocking=True)
                event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(device))
                events.append(event)
                stacked = host
            copies.append((indices, stacked))
        sizes = [tensor.numel() for tensor in tensors]
        self._waiting.append((copies, events, sizes, take))
        self.poll(wait=len(self._waiting) > MAX_WAITING)

    def poll(self, *, wait: bool = False) -> None:
        """Hand over what has arrived; with `wait`, everything."""
        while self._waiting:
            copies, events, sizes, take = self._waiting[0]
            if not wait and not all(event.query() for event in events):
                return
            for event in events:
                event.synchronize()
            self._waiting.popleft()
            if len(copies) == 1:
                take(copies[0][1].tolist())
                continue
            parts: list[list[float]] = [[] for _ in sizes]
            for indices, host in copies:
                numbers, at = host.tolist(), 0
                for index in indices:
                    parts[index] = numbers[at : at + sizes[index]]
                    at += sizes[index]
            take([number for part in parts for number in part])


def _flat(tensor: Tensor) -> Tensor:
    """Return the entries in a row; most come so, and each call of torch takes a microsecond."""
    if tensor.ndim == 1 and not tensor.requires_grad:
        return tensor
    return tensor.detach().reshape(-1)
