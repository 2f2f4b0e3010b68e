"""Empty steps: of an optimizer that no backward reaches, in a loop that learned before."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradlint.hooks.sites import is_lazy
from gradlint.loop_facts import EmptyFacts
from gradlint.watching.interval import Interval
from gradlint.watching.optimizers import Known
from gradlint.watching.sampling import local, sample

PROBED = 8
"""Parameters that are compared: what moves one moves others."""

MOST = 256
"""Comparisons that wait for their answer."""


@dataclass(slots=True)
class _Steps:
    first: int
    seen: int = 0
    full: bool = False
    """Whether any of them had something to apply."""
    foreign: int = 0
    """Parameters it holds, where they are no watched model's."""
    before: list[tuple[weakref.ref[nn.Parameter], Tensor]] = field(default_factory=list)
    """Samples of some of those when it was first seen."""
    moved: list[Tensor] = field(default_factory=list)
    """Whether they changed since: it finds its gradients elsewhere than in `.grad`."""

    def look(self, held: Sequence[nn.Parameter]) -> None:
        """Compare with what they were; nothing waits for the answer."""
        if not self.before:
            plain = [p for p in held if not (is_lazy(p) or p.is_meta) and p.numel()][:PROBED]
            self.before = [(weakref.ref(p), sample(local(p)).clone()) for p in plain]
        now = [(ref(), before) for ref, before in self.before]
        self.moved += [_differs(sample(local(p)), before) for p, before in now if p is not None]


def _differs(now: Tensor, before: Tensor) -> Tensor:
    alike = now.shape == before.shape and now.device == before.device
    return (now != before).any() if alike else torch.tensor(True)


class EmptySteps:
    """Counts, of the steps looked at, those that found no gradient that backward had left."""

    def __init__(self) -> None:
        self._steps: weakref.WeakKeyDictionary[Known, _Steps] = weakref.WeakKeyDictionary()

    def begins(self, interval: Interval, known: Known) -> None:
        """Note whether a step is about to apply nothing, though a backward ran before it.

        What was cleared in between was there when backward ended.
        """
        steps = self._steps.setdefault(known, _Steps(interval.number))
        looked = interval.closeup is not None and interval.thorough and not interval.rests
        # What leads to another network says nothing of one that holds none of the models.
        ran = interval.backwards or (interval.aside and known.paths)
        if steps.full:
            return
        held = [p for p in known.parameters() if p.requires_grad]
        reached = any(p.grad is not None or id(p) in interval.backward.norms for p in held)
        steps.full = reached or not held
        steps.seen += bool(looked and ran)
        steps.foreign = 0 if known.paths else len(held)
        if steps.foreign and len(steps.moved) < MOST:
            with torch.no_grad():
                steps.look(held)

    def facts(self, stepped: Sequence[Known]) -> tuple[EmptyFacts, ...]:
        """Return the optimizers that took over from others, and never found a gradient."""
        found = []
        for known in stepped:
            steps = self._steps.get(known)
            if steps is None or steps.full or not steps.seen or steps.first == 1:
                continue
            if any(bool(moved) for moved in steps.moved):
                continue
            alone = not any(
                other.first_at <= known.last_at and steps.first <= other.last_at
                for other in stepped
                if other is not known
            )
            if alone:
                made = known.steps, steps.seen, steps.foreign
                found.append(EmptyFacts(known.kind, steps.first, *made))
        return tuple(found)
