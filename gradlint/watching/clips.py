"""Clips: what was clipped, how, and at what limit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradlint.loop_facts import ClippingFacts


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
    by_hand: int = 0
    """Observed steps at which the gradient was smaller than backward had left it, unasked."""

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
            return ClippingFacts("by-hand", steps=self.by_hand) if self.by_hand >= 3 else None
        return ClippingFacts(
            kind=max(self.kinds, key=lambda kind: self.kinds[kind]),
            limit=self.limit,
            calls=self.calls,
            steps=self.steps,
            tensors=round(statistics.median(self.tensors)),
            scaled=self.scaled,
        )
