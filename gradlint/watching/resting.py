"""Resting: steps that nobody looks at go by with their loss and their number kept, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from time import perf_counter
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from gradlint.hooks.manager import graph_task

if TYPE_CHECKING:
    from gradlint.watching.interval import Interval
    from gradlint.watching.loop import Loop
    from gradlint.watching.optimizers import Known


class Resting:
    """The short way through steps like those before: one backward, then the optimizer's step.

    A step of a small model takes a fifth of a millisecond, and the usual way through `Loop`,
    which is ready for everything, would be a twentieth of it. Each method tells whether the
    short way was enough: whatever is unusual takes the usual one, and what the short way did
    until then is what the usual one would have done.

    Args:
        loop: Whose steps they are.
        known: Its only optimizer.
    """

    __slots__ = ("interval", "known", "loop", "points", "rate", "site")

    def __init__(self, loop: Loop, known: Known) -> None:
        self.loop = loop
        self.known = known
        self.interval: Interval | None = None
        """What the steps share."""
        self.site = loop.cast.stream(known)
        self.points = loop.records.points("loss", self.site)
        self.rate: float | None = None

    def over(self, interval: Interval) -> Self:
        """Take the short way until the last step that shares `interval`."""
        self.interval = interval
        self.rate = self.known.learning_rate()
        return self

    def backward_begins(self, tensors: Sequence[Tensor]) -> bool:
        """Take the loss."""
        started = perf_counter()
        loop, interval = self.loop, self.interval
        if interval is None or interval.backwards or loop.backward_depth or len(tensors) != 1:
            return False
        loss = tensors[0]
        plain = type(loss) is Tensor and loss.is_cpu and loss.ndim == 0
        if not plain or loss.grad_fn is None or not loss.is_floating_point():
            return False
        if get_ident() != loop.thread or graph_task() != -1 or loop.optimizers.inside:
            return False
        value = cast(float, loss.tolist())
        if value - value != 0.0:  # not finite: where it comes from will be asked
            return False
        loop.backward_depth = 1
        loop.backwards += 1
        interval.backwards = 1
        loop.series.only(value)
        loop.own += perf_counter() - started
        return True

    def backward_ended(self) -> bool:
        """End what `backward_begins` began."""
        loop = self.loop
        if loop.backward_depth != 1 or graph_task() != -1 or get_ident() != loop.thread:
            return False
        loop.backward_depth = 0
        return True

    def step_ended(self, optimizer: torch.optim.Optimizer) -> bool:
        """Count the step."""
        started = perf_counter()
        loop, known, interval = self.loop, self.known, self.interval
        if interval is None or interval.backwards != 1 or interval.number >= interval.last:
            return False
        if known.optimizer() is not optimizer or get_ident() != loop.thread:
            return False
        groups = optimizer.param_groups
        rate = groups[0]["lr"] if len(groups) == 1 else None
        if type(rate) is not float or loop.clips.of_step:
            return False
        value = loop.series.taken()
        if value is None:
            return False
        number = interval.number
        loop.records.add(self.points, number, value)
        if rate != self.rate:
            self.rate = rate
            loop.series.rate_is(rate, number, self.site)
        known.steps += 1
        known.last_at = loop.steps = number
        loop.raised = None
        interval.number = number + 1
        interval.backwards = 0
        loop.own += perf_counter() - started
        return True
