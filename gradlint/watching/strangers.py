"""Strangers: optimizers that step after a model's backward passes, and hold none of it."""

from __future__ import annotations

import weakref

import torch

from gradlint.loop_facts import StrangerFacts


class _Stranger:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.kind = type(optimizer).__name__
        self.steps = 0
        self.parameters = 0
        self.fed = False
        """Whether any of its parameters ever had a gradient when it stepped."""
        self.seen = 0
        """Backward passes there were at its latest step."""


class Strangers:
    """Counts the steps of optimizers that no watched model has a parameter in."""

    def __init__(self) -> None:
        self._seen: dict[int, _Stranger] = {}

    def steps(self, optimizer: torch.optim.Optimizer, backwards: int) -> None:
        """Note that `optimizer` is about to step, after so many backward passes in all."""
        seen = self._seen.get(id(optimizer))
        if seen is None or seen.optimizer() is not optimizer:
            seen = self._seen[id(optimizer)] = _Stranger(optimizer)
        if seen.fed:
            return
        held = [p for group in optimizer.param_groups for p in group["params"]]
        seen.fed = any(p.grad is not None for p in held)
        seen.parameters = len(held)
        if backwards > seen.seen:
            seen.seen = backwards
            seen.steps += 1

    def facts(self) -> tuple[StrangerFacts, ...]:
        """Return those that never found a gradient to apply."""
        idle = [s for s in self._seen.values() if s.parameters and not s.fed]
        return tuple(StrangerFacts(s.kind, s.steps, s.parameters) for s in idle)
