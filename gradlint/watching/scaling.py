"""Scaling: the GradScaler of a loop, its scale, and the steps it skips."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState

from gradlint.loop_facts import ScalerFacts

LATEST = 4096
"""Skipped steps remembered: a run of any length takes no more."""


class Scaling:
    """What a loop's GradScaler does."""

    def __init__(self) -> None:
        self._scaler: weakref.ref[GradScaler] | None = None
        self._scales: list[Tensor] = []
        self._asked = 0
        self._skipped = 0
        self._skipped_at: deque[int] = deque(maxlen=LATEST)
        """Numbers of the latest steps that were asked for and not made."""
        self._waiting = False

    @property
    def seen(self) -> bool:
        """Whether a scaler scaled a loss."""
        return self._scaler is not None

    @property
    def scale(self) -> Tensor | None:
        """The scale that gradients of the open step carry, on its device."""
        return self._scales[-1] if self._scales else None

    def scaled(self, scaler: GradScaler) -> None:
        """Note that a loss was scaled."""
        self._scaler = weakref.ref(scaler)
        scale = scaler._scale
        if scale is not None:
            # It changes in place at the next update.
            self._scales[1:] = [scale.detach().clone()]

    def unscaled(self) -> bool:
        """Whether any optimizer's gradients were unscaled since the last update."""
        scaler = self._scaler() if self._scaler is not None else None
        if scaler is None:
            return True
        states: Any = scaler._per_optimizer_states
        return any(state["stage"] is not OptState.READY for state in list(states.values()))

    def is_fused(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether an optimizer divides the scale out inside its own step: nobody sees it do so."""
        return getattr(optimizer, "grad_scale", None) is not None

    def asked(self) -> None:
        """Note that the scaler was asked for a step."""
        self._waiting = True

    def stepped(self) -> None:
        """Note that the optimizer stepped."""
        if self._waiting:
            self._asked += 1
            self._waiting = False

    def updated(self) -> bool:
        """Note the scaler's update; return whether the step before it was skipped."""
        skipped, self._waiting = self._waiting, False
        if skipped:
            self._skipped_at.append(self._asked)
            self._asked += 1
            self._skipped += 1
        return skipped

    def facts(self) -> ScalerFacts | None:
        """Return what is known of the scaler; None without one. Reads its scale back."""
        if not self._scales:
            return None
        late = sum(number >= self._asked // 2 for number in self._skipped_at)
        return ScalerFacts(
            first_scale=self._scales[0].reshape(1).tolist()[0],
            last_scale=self._scales[-1].reshape(1).tolist()[0],
            steps=self._asked,
            skipped=self._skipped,
            skipped_late=late,
        )
