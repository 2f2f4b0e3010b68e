"""Clips: what was clipped, how, and at what limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradlint.loop_facts import ClippingFacts

SMALLER = 1e-3
"""Share by which a gradient has to be smaller than backward left it: rounding is below."""


@dataclass(frozen=True)
class Clip:
    """One clipping call."""

    kind: str
    limit: float
    norm: Tensor | None
    tensors: int
    scaled: bool


@dataclass
class Clips:
    """All clipping calls of a loop, counted; those of the open step, kept."""

    of_step: list[Clip] = field(default_factory=list)
    calls: int = 0
    steps: int = 0
    scaled: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    limit: float = float("nan")
    tensors: list[int] = field(default_factory=list)

    def add(
        self, kind: str, parameters: Any, limit: Any, norm: Tensor | None, *, scaled: bool
    ) -> None:
        """Note one call."""
        count = 1 if isinstance(parameters, Tensor) else len(parameters)
        number = self.limit
        if not isinstance(limit, Tensor):
            number = float(limit)
        elif limit.device.type == "cpu":  # elsewhere reading it waits
            number = float(limit.reshape(1).tolist()[0])
        local = getattr(norm, "_local_tensor", norm)
        norm = local.detach() if isinstance(local, Tensor) else None
        self.of_step.append(Clip(kind, number, norm, count, scaled))

    def close_step(self) -> tuple[Tensor | None, float] | None:
        """Count the calls of a step; return the largest norm and its limit, if there were any."""
        calls, self.of_step = self.of_step, []
        if not calls:
            return None
        self.steps += 1
        self.calls += len(calls)
        for clip in calls:
            self.kinds[clip.kind] = self.kinds.get(clip.kind, 0) + 1
            self.scaled += clip.scaled
            self.limit = clip.limit
            if len(self.tensors) < 1000:
                self.tensors.append(clip.tensors)
        norms = [clip.norm.reshape(()).float() for clip in calls if clip.norm is not None]
        if not norms:
            return None, calls[0].limit
        largest = norms[0] if len(norms) == 1 else torch.stack(norms).amax()
        return largest, calls[0].limit

    def facts(self) -> ClippingFacts | None:
        """Return what is known of the loop's clipping; None without any."""
        if not self.calls:
            return None
        return ClippingFacts(
            kind=max(self.kinds, key=lambda kind: self.kinds[kind]),
            limit=self.limit,
            calls=self.calls,
            steps=self.steps,
            tensors=round(statistics.median(self.tensors)),
            scaled=self.scaled,
        )


def clipped_by_hand(
    before: Mapping[int, float], after: Mapping[int, float]
) -> ClippingFacts | None:
    """Return what norms tell of clipping that no call of torch's made; None without any.

    A gradient that is smaller by the same factor at every step was divided, not clipped.

    Args:
        before: Total gradient norms when backward ended, by step.
        after: Total gradient norms that the optimizer found, by step.
    """
    kept = {step: after[step] / norm for step, norm in before.items() if norm > 0 and step in after}
    smaller = [share for share in kept.values() if 0 < share < 1 - SMALLER]
    if len(smaller) < 3:
        return None
    if len(smaller) == len(kept) and max(smaller) - min(smaller) < SMALLER * max(smaller):
        return None
    return ClippingFacts("by-hand", steps=len(smaller))
