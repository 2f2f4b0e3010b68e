"""Cadence: which steps of a loop are looked at, and how closely."""

from __future__ import annotations

import math
import sys
from enum import IntEnum
from typing import Literal

FIRST_FULL = 3
"""Steps looked at in full at the start, as `check` does: wiring faults show there."""

FIRST_LIGHT = 40
"""Steps looked at, at least lightly, at the start: as many as `check` trains for."""

PATIENCE = 3.0
"""Seconds that looking at the first steps may take: a graph of a hundred thousand operations
takes long to read, and nobody waits for it without knowing why."""

GROWTH = 1.5
"""Full steps grow apart by this factor: 3, 5, 8, 12, 18 … about 20 in ten thousand steps."""

AT_LEAST = 2
"""By this factor they grow apart at most, whatever the budget says, until all of them took
`PATIENCE`: one is then in the later half of a run of any length, on a busy machine, too."""

SURE = 1.25
"""Light looks that are made whatever the budget says grow apart by this factor: forty in ten
thousand steps; what they cost is saved on the looks after them. A verdict must not depend on
how busy the machine is."""

SHARE = 0.4
"""Share of the budget that light looks may take, and as much again the full ones, which are dear
and rare. A fifth is left for what our clock does not see: calls that torch makes to reach us."""

MOST_RESTING = 16
"""Steps not looked at in a row before their cost is counted: counting costs, too."""

MOST_APART = 1024
"""Steps between two light looks at most, where processes look at the same ones."""


class Look(IntEnum):
    """How closely a step is looked at."""

    OFF = 0
    """Loss, learning rate and the exact facts of wiring only."""
    LIGHT = 1
    """Samples of activations, gradients and weights, reduced together."""
    FULL = 2
    """Every metric, the autograd graph and its gains."""


class Cadence:
    """Chooses how closely the next step is looked at.

    Args:
        every: "auto" keeps to `budget`; a number looks at each step that it divides, whatever
            that costs, so that two runs look at the same steps.
        budget: Share of the loop's time that looking may take, once the first steps are over.
    """

    def __init__(self, every: int | Literal["auto"] = "auto", budget: float = 0.02) -> None:
        self.every = every
        self.budget = budget
        self.cost = [0.0, 0.0, 0.0]
        """Seconds a step of each kind of look took of late."""
        self._next_full = FIRST_FULL + 1
        self._last_full = FIRST_FULL
        self._next_sure = 1
        self._first = 0.0
        """Seconds that the first steps and all full looks took."""
        self._credit = [0.0, 0.0, 0.0]
        self._share = 0.0
        """Seconds of a step that its looks may take, of late."""
        self._aligned = False

    def align(self) -> None:
        """Choose steps by their numbers: processes that run alike then look at the same ones.

        Light looks come at multiples of a power of two: the steps of a slower process are
        among those of a faster one.
        """
        self._aligned = True

    def next(self, step: int) -> Look:
        """Return how closely step `step`, counted from 1, is looked at."""
        if step == 1:
            return Look.FULL
        if self._aligned and self.every == "auto":
            return self._next_aligned(step)
        if self.every == "auto" and self._first > PATIENCE and step <= FIRST_LIGHT:
            return self._sure(step)
        if step <= FIRST_FULL:
            return Look.FULL
        due = step >= self._next_full
        if self.every != "auto":
            if due and step % self.every == 0:
                return self._full(step)
            return Look.LIGHT if step % self.every == 0 else Look.OFF
        if step <= FIRST_LIGHT:
            return self._full(step) if due else Look.LIGHT
        if due and (self._affords(Look.FULL) or step >= self._full_by()):
            return self._full(step)
        return Look.LIGHT if self._affords(Look.LIGHT) else self._sure(step)

    def _sure(self, step: int) -> Look:
        if step < self._next_sure:
            return Look.OFF
        self._next_sure = max(step + 1, round(step * SURE))
        return Look.LIGHT

    def _next_aligned(self, step: int) -> Look:
        while self._next_full < step:
            self._full(self._next_full)
        due = step <= FIRST_FULL or step == self._next_full
        if step == self._next_full:
            self._full(step)
        early = step <= FIRST_LIGHT and self._first <= PATIENCE
        if due:
            # Those who cannot afford the full look take the light one: the step is common.
            taken = early or self._affords(Look.FULL) or self._first <= PATIENCE
            return Look.FULL if taken else Look.LIGHT
        apart = 1
        while apart < MOST_APART and apart * self._share < self.cost[Look.LIGHT]:
            apart *= 2
        return Look.LIGHT if early or step % apart == 0 else Look.OFF

    def resting(self, step: int) -> int:
        """Return how many steps from `step` on, which is not looked at, surely are not, either."""
        if self._aligned or self._share <= 0.0:
            return 1
        if self.every != "auto":
            return self.every - step % self.every
        light, full = (
            math.ceil((self.cost[kind] - self._credit[kind]) / self._share)
            for kind in (Look.LIGHT, Look.FULL)
        )
        full = min(max(full, self._next_full - step), self._full_by() - step)
        return max(1, min(MOST_RESTING, self._next_sure - step, light, full))

    def _full_by(self) -> int:
        """The step that is looked at in full in any case."""
        return AT_LEAST * self._last_full if self._first <= PATIENCE else sys.maxsize

    def _full(self, step: int) -> Look:
        self._last_full = step
        self._next_full = max(step + 1, round(step * GROWTH))
        return Look.FULL

    def _affords(self, look: Look) -> bool:
        return self._credit[look] >= self.cost[look]

    def spent(
        self, look: Look, own: float, whole: float, *, steps: int = 1, first: bool = False
    ) -> None:
        """Note what a step cost.

        Args:
            look: How closely it was looked at.
            own: Seconds gradlint took of it.
            whole: Seconds the step took, gradlint's included.
            steps: Number of steps alike that these are the seconds of.
            first: Whether it was one of the first steps, which the budget does not bind.
        """
        known, each = self.cost[look], own / steps
        self.cost[look] = each if known == 0.0 else 0.7 * known + 0.3 * each
        if first or look is Look.FULL:
            self._first += own
        if first:
            return
        share = SHARE * self.budget * max(whole - own, 0.0)
        each = share / steps
        self._share = each if self._share == 0.0 else 0.9 * self._share + 0.1 * each
        self._settle(Look.LIGHT, share, 0.0 if look is Look.FULL else own)
        self._settle(Look.FULL, share, own if look is Look.FULL else 0.0)

    def _settle(self, kind: int, share: float, own: float) -> None:
        # What is saved up is spent at once when a step grows cheap: keep a few steps' worth.
        # What is owed is forgiven alike: where nothing is cheap enough, it would only grow.
        limit = 4 * self.cost[kind]
        if limit < share:
            limit = share
        credit = self._credit[kind] + share
        credit = (limit if credit > limit else credit) - own
        self._credit[kind] = credit if credit > -limit else -limit
