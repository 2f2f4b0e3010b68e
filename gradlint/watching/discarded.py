"""Discarded: backwards whose gradients were cleared before the step that should use them."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradlint.hooks.sites import is_lazy
from gradlint.loop_facts import DiscardedFacts
from gradlint.watching.cadence import FIRST_LIGHT
from gradlint.watching.sampling import local, staged

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop

PROBED = 8
"""Parameters that are followed: what perturbs weights or merges gradients does so with all."""

MOST = 512
"""Steps counted: what so many have in common is no accident."""

ALIKE = 1e-5
"""By so much the cosine of two gradients may differ from one: dividing one in bfloat16 by a
number, as clipping does, rounds each entry by up to 2^-9, and the cosine by 4e-6."""

_Stack = tuple[tuple[CodeType, int], ...]


@dataclass
class _Step:
    """What was seen since the latest step."""

    stack: _Stack
    versions: list[int]
    weights: list[tuple[weakref.ref[nn.Parameter], Tensor]]
    count: int = 0
    """Backwards whose gradients were cleared when the next one began."""
    used: bool = False
    """Whether one of them, as far as can be told, was of use."""
    gradients: list[tuple[weakref.ref[nn.Parameter], Tensor]] = field(default_factory=list)
    """Samples as the latest backward left them."""
    changes: list[Tensor] = field(default_factory=list)
    """By how much the weights' samples changed from backward to backward."""


class Discarded:
    """Counts, of each step that is looked at, the backwards that came to nothing.

    Clearing between two backwards is no mistake by itself: the first one's gradient may have
    been read. It was not, as far as anybody can tell, where all of a step's backwards come from
    one line, called from the same lines, every one but the last is cleared, no weight moves
    between them (sharpness-aware minimization, updates by hand), none of their graphs leads to a
    tensor that neither the model nor the optimizer holds (attacks, saliency), and one of
    torch's own optimizers applies what the last one left, or a multiple of it (gradients that
    are merged, averaged or projected are others).

    Values are compared on the device they are on, and read when they are ready.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._open: _Step | None = None
        self._counts: dict[int, int] = {}
        """Of each step looked at, how many of its backwards came to nothing."""

    def forget(self) -> None:
        """Say nothing of the open step."""
        self._open = None

    def backward_begins(self, losses: Sequence[Tensor], *, first: bool, cleared: bool) -> None:
        """A backward begins: the first of its step, or one after `cleared` gradients or not."""
        if first:
            self._open = None if self._settled() else self._begin()
            return
        step = self._open
        if step is None or step.used:
            return
        step.count += 1
        step.used = not cleared or step.stack != _stack() or self._moved(step)
        if not step.used and step.count == 1:
            own = {id(p) for known in self.loop.optimizers for p in known.parameters()}
            own.update(id(p) for p in self.loop.observer.parameters.values())
            step.used = leads_elsewhere(losses, own)

    def backward_ended(self) -> None:
        """A backward ended."""
        step = self._open
        if step is not None and step.count and not step.used:
            step.gradients = [
                (weakref.ref(p), staged(local(p.grad)))
                for p in self._probed()
                if p.grad is not None
            ]

    def step_begins(self, optimizer: torch.optim.Optimizer, number: int) -> None:
        """An optimizer is about to apply the gradients: judge what is known of its step."""
        step, self._open = self._open, None
        if step is None:
            return
        self._counts[number] = 0
        known = type(optimizer).step.__module__.startswith("torch.optim.")
        rewrites = bool(getattr(optimizer, "_optimizer_step_pre_hooks", None))
        if not step.count or step.used or not known or rewrites:
            return
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        cosine = _cosine(step.gradients, held)
        if cosine is None:
            return

        def take(values: list[float]) -> None:
            cosine, *changes = values
            if cosine >= 1 - ALIKE and not any(changes):
                self._counts[number] = step.count

        self.loop.series.readback.submit([cosine, *step.changes], take)

    def facts(self) -> DiscardedFacts | None:
        """Return what the steps have in common; None where no backward came to nothing."""
        usual = Counter(count for count in self._counts.values() if count).most_common(1)
        if not usual:
            return None
        each, steps = usual[0]
        return DiscardedFacts(observed=len(self._counts), steps=steps, each=each)

    def _settled(self) -> bool:
        """Whether no more steps need be followed: the first had nothing to count, or many had."""
        seen = len(self._counts)
        return seen >= MOST or (seen >= FIRST_LIGHT and not any(self._counts.values()))

    def _begin(self) -> _Step:
        probed = self._probed()
        return _Step(
            _stack(), self._versions(), [(weakref.ref(p), staged(local(p))) for p in probed]
        )

    def _probed(self) -> list[nn.Parameter]:
        every = self.loop.observer.parameters.values()
        trained = [p for p in every if p.requires_grad and not is_lazy(p) and p.numel()]
        dense = [p for p in trained if p.grad is None or p.grad.layout is torch.strided]
        return dense[:: max(1, len(dense) // PROBED)][:PROBED]

    def _versions(self) -> list[int]:
        return [p._version for p in self.loop.observer.parameters.values()]

    def _moved(self, step: _Step) -> bool:
        """Whether a weight was written to; notes what its version does not tell."""
        if self._versions() != step.versions:
            return True
        for ref, before in step.weights:
            parameter = ref()
            now = None if parameter is None else staged(local(parameter))
            if now is None or now.shape != before.shape or now.device != before.device:
                return True
            step.changes.append((now - before).abs().amax())
        return False


def leads_elsewhere(losses: Sequence[Tensor], own: Collection[int]) -> bool:
    """Whether the graph behind `losses` leads to a leaf that is not one of `own`."""
    stack: list[Any] = [loss.grad_fn for loss in losses]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node is None:
            continue
        for each, _ in node.next_functions:
            if each not in seen:
                seen.add(each)
                stack.append(each)
        variable = getattr(node, "variable", None)
        if not node.next_functions and variable is not None and id(variable) not in own:
            return True
    return False


def _cosine(
    before: Sequence[tuple[weakref.ref[nn.Parameter], Tensor]], held: Collection[int]
) -> Tensor | None:
    """Return the cosine between gradients and what `before` they were; None without any."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for ref, old in before:
        parameter = ref()
        if parameter is None or id(parameter) not in held:
            continue
        if parameter.grad is None or parameter.grad.layout is not torch.strided:
            return None
        now = staged(local(parameter.grad))
        if now.shape != old.shape or now.device != old.device:
            return None
        pairs.append((now, old))
    if not pairs or len({now.device for now, _ in pairs}) > 1:
        return None
    wide = torch.float32 if pairs[0][0].device.type == "mps" else torch.float64
    new, old = (torch.cat([each.to(wide) for each in side]) for side in zip(*pairs, strict=True))
    cosine: Tensor = new @ old / (torch.linalg.vector_norm(new) * torch.linalg.vector_norm(old))
    return cosine


def _stack() -> _Stack:
    """Return the lines that are running, outside torch and gradlint."""
    frame, found = sys._getframe(1), []
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(("torch.", "gradlint.")):
            found.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)
