"""Empty steps: of an optimizer that no backward reaches, in a loop that learned before."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from gradlint.loop_facts import EmptyFacts
from gradlint.watching.interval import Interval
from gradlint.watching.optimizers import Known


@dataclass(slots=True)
class _Steps:
    first: int
    seen: int = 0
    full: bool = False
    """Whether any of them had something to apply."""
    foreign: int = 0
    """Parameters it holds, where they are no watched model's."""


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

    def facts(self, stepped: Sequence[Known]) -> tuple[EmptyFacts, ...]:
        """Return the optimizers that took over from others, and never found a gradient."""
        found = []
        for known in stepped:
            steps = self._steps.get(known)
            if steps is None or steps.full or not steps.seen or steps.first == 1:
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
