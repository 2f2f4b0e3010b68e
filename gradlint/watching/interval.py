"""Interval: what happened since the last step, until the next one closes it."""

from __future__ import annotations

from dataclasses import dataclass

from gradlint.watching.cadence import Look
from gradlint.watching.closeup import Backward, Closeup

NOTHING = Backward({})
"""No norms: no backward ended yet."""


@dataclass(slots=True)
class Interval:
    """The open step: everything between two optimizer steps."""

    look: Look
    number: int
    started: float
    own_before: float
    closeup: Closeup | None = None
    initial: bool = False
    """Whether the parameters of the step are as they were made."""
    backwards: int = 0
    backward: Backward = NOTHING
    """Gradient norms when the latest backward ended."""
    measured: bool = False
    """Whether the gradients were measured."""
