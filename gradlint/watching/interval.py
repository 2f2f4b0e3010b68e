"""Interval: what happened since the last step, until the next one closes it."""

from __future__ import annotations

from dataclasses import dataclass

from gradlint.watching.cadence import Look
from gradlint.watching.closeup import Backward, Closeup

NOTHING = Backward({})
"""No norms: no backward ended yet."""


@dataclass(slots=True)
class Interval:
    """The open step: everything between two optimizer steps.

    Steps that nobody looks at share one, which then goes on to the next step's number.
    """

    look: Look
    first: int
    number: int
    started: float
    own_before: float
    last: int = 0
    """The last of the steps that share it; 0 for one that is alone."""
    thorough: bool = True
    """Whether activations are sampled, gradients measured when backward ended, too, and weights
    in whole."""
    closeup: Closeup | None = None
    initial: bool = False
    """Whether the parameters of the step are as they were made."""
    backwards: int = 0
    aside: bool = False
    """Whether a backward went by that led to no watched model."""
    backward: Backward = NOTHING
    """Gradient norms when the latest backward ended."""
    rests: bool = False
    """Whether backwards go by unseen until the step is made: it gathers many of them."""
    measured: bool = False
    """Whether the gradients were measured."""
