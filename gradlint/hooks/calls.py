"""Which module ran when: calls as intervals of autograd's sequence numbers."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

sequence_number = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]
"""Number the next autograd node of this thread will get."""


@dataclass(slots=True)
class Call:
    """One call of one module: the autograd nodes ``start <= number < end`` are its own."""

    path: str
    start: int
    end: int = -1
    index: int = 0


class Calls:
    """Calls of one forward pass, nested as they ran."""

    def __init__(self) -> None:
        self.finished: list[Call] = []
        self.open: list[Call] = []
        self.order: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.of_forward: dict[str, int] = {}
        """Calls of each module since the outermost module was entered."""
        self.packed: list[tuple[int, int]] = []
        """Intervals in which saved tensors go through hooks (checkpoints): never read there."""

    def enter(self, path: str) -> None:
        """Note that the module at `path` starts."""
        index = self.counts.get(path, 0)
        self.counts[path] = index + 1
        if not self.open:
            self.of_forward.clear()
        self.of_forward[path] = self.of_forward.get(path, 0) + 1
        self.open.append(Call(path, sequence_number(), index=index))

    def leave(self, path: str) -> int:
        """Note that the module at `path` ended; return the index of the call."""
        self.order.setdefault(path, len(self.order))
        for position in range(len(self.open) - 1, -1, -1):
            if self.open[position].path == path:
                call = self.open[position]
                del self.open[position:]
                call.end = sequence_number()
                self.finished.append(call)
                return call.index
        return 0

    @property
    def running(self) -> str | None:
        """Path of the innermost module that started and has not ended."""
        return self.open[-1].path if self.open else None

    def innermost(self, numbers: list[int]) -> dict[int, Call]:
        """Return the innermost call of each node number in `numbers` (sorted)."""
        owner: dict[int, Call] = {}
        # Longer calls first, callers before callees: an inner call overwrites its caller's claim.
        callers_first = self.finished[::-1]
        for call in sorted(callers_first, key=lambda c: c.start - c.end):
            first = bisect.bisect_left(numbers, call.start)
            last = bisect.bisect_left(numbers, call.end)
            for number in numbers[first:last]:
                owner[number] = call
        return owner

    def is_packed(self, number: int) -> bool:
        """Whether the node's saved tensors went through somebody's hooks."""
        return any(start <= number < end for start, end in self.packed)

    @contextmanager
    def noting_packed(self) -> Iterator[None]:
        """Note where `saved_tensors_hooks` are active; reading there would run the forward."""
        _noting.append(self)
        if len(_noting) == 1:
            saved_tensors_hooks.__enter__ = _noted_enter  # type: ignore[method-assign]
            saved_tensors_hooks.__exit__ = _noted_leave  # type: ignore[method-assign]
        try:
            yield
        finally:
            _noting.remove(self)
            if not _noting:
                saved_tensors_hooks.__enter__ = _enter  # type: ignore[method-assign]
                saved_tensors_hooks.__exit__ = _leave  # type: ignore[method-assign]


_noting: list[Calls] = []
_starts: list[int] = []
_enter, _leave = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__


def _noted_enter(hooks: Any) -> Any:
    _starts.append(sequence_number())
    return _enter(hooks)


def _noted_leave(hooks: Any, *exc: Any) -> Any:
    if _starts:
        start = _starts.pop()
        for calls in _noting:
            calls.packed.append((start, sequence_number()))
    return _leave(hooks, *exc)
