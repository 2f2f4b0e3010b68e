"""Originals: models that an optimizer steps and no gradient reaches; their copies are trained."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.hooks.ranks import class_of
from gradlint.hooks.sites import is_lazy
from gradlint.loop_facts import OriginalFacts
from gradlint.watching.roots import owners
from gradlint.watching.sampling import local, sample

LOOKED = 3
"""Steps looked at before the model is searched for: that takes as long as a few of them. What
did not move from one to the next had nothing applied in between, either."""

FOLLOWED = 16
"""Steps of one that are looked at where no other is, too: it may be one of many in turn. Then
they grow apart by a factor of two, so that one of the later half is among them."""

MOST = 64
"""Optimizers that are followed: a loop may build one for each of its steps."""

PROBED = 8
"""Parameters that are followed: what moves a model moves more than one."""

_Shape = tuple[str, frozenset[tuple[str, tuple[int, ...]]]]
"""A model's class, and its parameters' names and shapes."""


class _Original:
    def __init__(self, optimizer: torch.optim.Optimizer, held: Sequence[nn.Parameter]) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.kind = type(optimizer).__name__
        self.parameters = len(held)
        self.looks = 0
        self.steps = 0
        """Steps it had made when it was last looked at."""
        self.over = False
        """Whether a gradient was seen, or there is no such model."""
        self.shapes: set[_Shape] = set()
        plain = [p for p in held if not is_lazy(p) and not p.is_meta and p.numel()]
        self.before = [(weakref.ref(p), sample(local(p)).clone()) for p in plain[:PROBED]]
        self.moved: list[Tensor] = []

    def look(self) -> None:
        """Compare with what it was; nothing waits for the answer."""
        now = [(ref(), before) for ref, before in self.before]
        found = [(sample(local(p)) != before).any() for p, before in now if p is not None]
        several = zip(self.moved or found, found, strict=True)
        self.moved = [moved | anew for moved, anew in several]


class Originals:
    """Looks at optimizers that hold nothing of the models whose calls are watched."""

    def __init__(self) -> None:
        self._seen: dict[int, _Original] = {}

    def steps(self, optimizer: torch.optim.Optimizer, made: int) -> int:
        """Note that `optimizer`, which `made` so many steps before, is about to step.

        Returns:
            After how many steps the next is to be looked at in any case.
        """
        held = [p for group in optimizer.param_groups for p in group["params"]]
        seen = self._seen.get(id(optimizer))
        if seen is None or seen.optimizer() is not optimizer:
            if len(self._seen) >= MOST and seen is None:
                return sys.maxsize
            with torch.no_grad():
                seen = self._seen[id(optimizer)] = _Original(optimizer, held)
        if seen.over:
            return sys.maxsize
        if any(p.grad is not None for p in held) or len(held) != seen.parameters:
            seen.over = True
            seen.before, seen.moved = [], []
            return sys.maxsize
        seen.looks += 1
        seen.steps = made
        with torch.no_grad():
            seen.look()
        if seen.looks == LOOKED:
            seen.shapes = set(_shapes(held))
            seen.over = not seen.shapes
        return sys.maxsize if seen.over else made + 1 if seen.looks < FOLLOWED else 2 * made

    def facts(self, observer: Observer, fed: Collection[str]) -> tuple[OriginalFacts, ...]:
        """Return those that stand still while two copies at least are trained; this waits."""
        return tuple(
            OriginalFacts(seen.kind, seen.steps, seen.parameters, name, copies)
            for seen in self._seen.values()
            if seen.shapes and not seen.over and not any(bool(moved) for moved in seen.moved)
            for name, copies in [_copies(seen.shapes, observer, fed)]
            if copies > 1
        )


def _shapes(held: Sequence[nn.Parameter]) -> Iterator[_Shape]:
    """Yield what modules look like whose parameters are those that are held."""
    own = {id(p) for p in held}
    for _, model in owners(held):
        for part in model.modules():
            if {id(p) for p in part.parameters()} == own:
                yield _shape(part, {name: p.shape for name, p in part.named_parameters()})


def _shape(module: Any, shapes: Mapping[str, Sequence[int]]) -> _Shape:
    kind = module if isinstance(module, str) else class_of(module).__name__
    return kind, frozenset((name, tuple(shape)) for name, shape in shapes.items())


def _copies(shapes: set[_Shape], observer: Observer, fed: Collection[str]) -> tuple[str, int]:
    """Return the class of the watched models that look like this, and how many there were.

    One of them at least has to be known to have got a gradient: of copies that are gone it is
    not known of each.
    """
    models: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, facts in observer.facts_of_parameters.items():
        label, _, inner = path.partition(".")
        models.setdefault(label, {})[inner] = facts.shape
    kinds = {label: observer.facts_of_modules[label].kind for label in models}
    alike = {label for label, kind in kinds.items() if _shape(kind, models[label]) in shapes}
    reached = alike & {path.partition(".")[0] for path in fed}
    return (kinds[min(reached)], len(alike)) if reached else ("", 0)
