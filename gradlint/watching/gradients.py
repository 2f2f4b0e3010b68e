"""Gradients: what a step is about to apply, as backward left it and as the optimizer finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gradlint.watching.cadence import FIRST_LIGHT
from gradlint.watching.carry import Carry
from gradlint.watching.closeup import norms_by_id
from gradlint.watching.kept import Kept
from gradlint.watching.noise import Noise

if TYPE_CHECKING:
    from gradlint.watching.interval import Interval
    from gradlint.watching.loop import Loop
    from gradlint.watching.optimizers import Known


class Gradients:
    """Measures gradients, and weights, from a step's first backward to its update.

    Args:
        loop: Whose steps they are.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.carry_by_hand = Carry()
        """What is carried from one update by hand to the next."""
        self.fed: set[str] = set()
        """Paths of parameters that got a gradient."""
        self._noise = Noise()
        self._kept = Kept()

    def carries(self) -> list[Carry]:
        """Return those of all optimizers, and of updates by hand."""
        return [*(known.carry for known in self._loop.optimizers), self.carry_by_hand]

    def backward_ended(self, interval: Interval) -> None:
        """Note the norms that a backward left."""
        observer = self._loop.observer
        interval.backward = norms_by_id(list(observer.parameters.values()))
        if not observer.parameters.keys() <= self.fed:  # models that are gone stay in it
            self.fed |= {n for n, p in observer.parameters.items() if p.grad is not None}

    def before_update(self, interval: Interval, known: Known) -> None:
        """Keep weights as an optimizer's step finds them."""
        if interval.closeup is None:
            return
        interval.closeup.before_update()
        loop = self._loop
        if interval.number > FIRST_LIGHT:
            self._kept.forget()
        elif loop.optimizers.only() is known:
            held = {id(p) for p in known.parameters()}
            self._kept.begins(interval.number, loop.observer.parameters, held, loop.observer)

    def updated(self, interval: Interval) -> None:
        """Keep weights as the step leaves them."""
        self._kept.ended(interval.number)

    def measure(self, interval: Interval, known: Known | None) -> None:
        """Measure the gradients that a step is about to apply; None is an update by hand."""
        closeup, loop = interval.closeup, self._loop
        if closeup is None or interval.measured:
            return
        interval.measured = True
        optimizer = known.optimizer() if known is not None else None
        others = {id(p) for k in loop.optimizers if k is not known for p in k.parameters()}
        if others and known is not None:
            others.difference_update(id(p) for p in known.parameters())
        total = interval.backward.total(others)
        self._put("backward_gradient_norm", total)
        loop.ranks.note_backward(loop, interval.backward.norms, others, interval.number)
        clipped = bool(loop.clips.of_step)
        if known is not None and loop.optimizers.count_stepped < 2 and not clipped:
            self._noise.note(interval.number, loop.observer.parameters, loop.observer, others)
        carry = known.carry if known is not None else self.carry_by_hand
        self._put("carried_gradient_norm", carry.carried())
        if optimizer is not None and loop.scaling.is_fused(optimizer):
            # Its gradients are scaled to the last; backward's total says what it will apply.
            loop.scale_unknown |= not loop.scaling.seen
            self._put("total_gradient_norm", total)
            return
        closeup.measure(interval.backward, others, initial=interval.initial)

    def _put(self, metric: str, value: Tensor | None) -> None:
        """Note a norm that still carries the scaler's scale."""
        scale, observer = self._loop.scaling.scale, self._loop.observer
        if value is not None:
            observer.put(metric, value if scale is None else value / scale.to(value.device))
