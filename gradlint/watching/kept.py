"""Kept: whether what the optimizer changes is still there when its next step begins."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.watching.sampling import local

STEPS = 8
"""Consecutive steps of one measurement."""

ENTRIES = 256
"""Entries of each weight, the same at every step."""

MAX_WEIGHTS = 64
"""Weights followed; who puts weights back puts most of them back."""


class Kept:
    """Keeps a few entries of each weight as steps begin and end."""

    def __init__(self) -> None:
        self._begins: dict[str, list[Tensor]] = {}
        self._ends: dict[str, list[Tensor]] = {}
        self._last = -1
        self._open: dict[str, nn.Parameter] = {}

    def begins(
        self,
        number: int,
        parameters: Mapping[str, nn.Parameter],
        held: Collection[int],
        observer: Observer,
    ) -> None:
        """Keep the weights as step `number` finds them; after `STEPS` in a row, measure.

        Args:
            number: The step.
            parameters: Parameters by path.
            held: Those that the optimizer holds, by ``id``.
            observer: What measures.
        """
        if number != self._last + 1:
            self._begins.clear()
            self._ends.clear()
        self._last = number
        weights = {
            path: p for path, p in parameters.items()
            if p.ndim > 1 and p.requires_grad and p.is_floating_point() and id(p) in held
        }  # fmt: skip
        self._open = dict(list(weights.items())[:MAX_WEIGHTS])
        for path, weight in self._open.items():
            taken = self._begins.setdefault(path, [])
            taken.append(_entries(weight))
            ends = self._ends.setdefault(path, [])
            if len(taken) == STEPS + 1 and len(ends) == STEPS:
                together = torch.stack(taken), torch.stack(ends)
                observer.put_at("kept_update_share", observer.weights.site(path), *together)
                del taken[:-1]
                ends.clear()

    def ended(self, number: int) -> None:
        """Keep the weights as step `number` leaves them."""
        held, self._open = self._open, {}  # nothing of ours keeps a model alive
        if number == self._last:
            for path, weight in held.items():
                self._ends[path].append(_entries(weight))

    def forget(self) -> None:
        """Drop everything: no more steps are followed."""
        self._begins.clear()
        self._ends.clear()
        self._open = {}


def _entries(weight: nn.Parameter) -> Tensor:
    flat = local(weight).reshape(-1)
    return flat[:: max(1, flat.numel() // ENTRIES)][:ENTRIES].clone()
