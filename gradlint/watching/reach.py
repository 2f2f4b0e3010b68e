"""Reach: whether a backward is the watched models' business, or another network's."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from gradlint.watching.interval import Interval

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop

SURE = 2
"""Backwards of one line that were looked at and were alike: the next ones from there are, too."""

_Line = tuple[CodeType, int]


class Reach:
    """Tells of each backward whether its graph leads to a parameter of a watched model.

    Steps that are looked at thoroughly decide. The others are asked only where another network
    was seen to train, and then only about lines that both use. As long as nothing watched was
    reached, every backward counts: that none of them reaches the model is then what is wrong.
    """

    def __init__(self) -> None:
        self.reached = False
        """Whether any backward led to a watched parameter so far."""
        self.doubtful = 0
        """Backwards before the first that did."""
        self.apart = False
        """Whether another network was seen to train beside the watched ones."""
        self._lines: dict[_Line, list[bool]] = {}
        self._wanted: frozenset[int] = frozenset()

    @property
    def doubts(self) -> bool:
        """Whether there were backwards, and none of them led to a watched parameter."""
        return self.doubtful > 0 and not self.reached

    def concerns(
        self, loop: Loop, interval: Interval, losses: Sequence[Tensor], inputs: Any
    ) -> bool:
        """Whether a backward from `losses` counts as one of the watched models'."""
        looked = interval.closeup is not None and interval.thorough and not interval.rests
        if loop.discover or loop.observer.is_split or (self.reached and not (looked or self.apart)):
            return True
        line = _line() if self.apart else None
        seen = self._lines.setdefault(line, []) if line is not None else []
        if not looked and len(seen) >= SURE and all(seen) == any(seen):
            return seen[0]
        reaches = self._reaches(loop, losses, inputs)
        if len(seen) < SURE or reaches not in seen:
            seen.append(reaches)
        if reaches and not self.reached:
            self.reached = True
            if self.doubtful and not loop.steps:
                self.apart = True
                loop.begin_anew()
        elif not reaches and self.reached:
            self.apart = True
        elif not reaches:
            self.doubtful += 1
        return reaches or not self.reached

    def _reaches(self, loop: Loop, losses: Sequence[Tensor], inputs: Any) -> bool:
        named = [inputs] if isinstance(inputs, Tensor) else [*(inputs or ())]
        found = self._found(losses, named)
        if not found:
            for label, model in list(loop.observer.roots.items()):
                loop.refresh(label, model)  # they may have gained parameters since
            self._wanted = frozenset(id(p) for p in loop.observer.parameters.values())
            found = self._found(losses, named)
        return found

    def _found(self, losses: Sequence[Tensor], named: Sequence[Any]) -> bool:
        # Of an inner tensor it is not asked what is behind it.
        leaves = [id(t) for t in named if getattr(t, "grad_fn", None) is None]
        if leaves and len(leaves) == len(named):
            return any(leaf in self._wanted for leaf in leaves)
        return leads_to(losses, self._wanted)


def leads_to(losses: Sequence[Tensor], wanted: Collection[int]) -> bool:
    """Whether the graph behind `losses` leads to a tensor of `wanted`, or hides where it leads.

    A loss without a graph hides it, and so does a function in Python: a checkpoint runs another
    graph within its own. Compiled code does not: what it reads stands in the graph.
    """
    stack = [loss.grad_fn for loss in losses]
    seen = set(stack)
    hides = None in seen
    while stack:
        node: Any = stack.pop()
        following = () if node is None else node.next_functions
        if not following:
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) in wanted:
                return True
        elif isinstance(node, BackwardCFunction):
            hides = hides or not type(node).__name__.startswith("CompiledFunction")
        for each, _ in following:
            if each is not None and each not in seen:
                seen.add(each)
                stack.append(each)
    return hides


def _line() -> _Line | None:
    """Return the line outside torch and gradlint that called backward."""
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(("torch.", "gradlint.")):
            return frame.f_code, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None
