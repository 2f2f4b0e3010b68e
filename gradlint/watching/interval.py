"""Interval: what happened since the last step, until the next one closes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from gradlint.watching.cadence import Look
from gradlint.watching.light import Light


@dataclass
class Interval:
    """The open step: everything between two optimizer steps."""

    look: Look
    number: int
    started: float
    own_before: float
    light: Light | None = None
    initial: bool = False
    """Whether the parameters of the step are as they were made."""
    backwards: int = 0
    forwards: int = 0
    losses: list[Tensor] = field(default_factory=list)
    """Losses whose value the host does not know yet."""
    loss: float | None = None
    """Sum of the losses that it knows."""
    norms: dict[int, tuple[int, Tensor]] = field(default_factory=dict)
    """By ``id(parameter)``, version and norm of the gradient when the latest backward ended."""
    measured: bool = False
    """Whether the gradients were measured."""
    captured: bool = False
    """Whether the graph of a backward was read."""
    recording: bool = False
    """Whether the gains of a backward that runs are recorded."""
    hooked: bool = False
    """Whether modules have their hooks."""

    def add_loss(self, value: float) -> None:
        """Add a loss that the host knows."""
        self.loss = value if self.loss is None else self.loss + value
