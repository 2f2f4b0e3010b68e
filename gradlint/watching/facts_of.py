"""Facts of optimizers, and lines of modules, as a watcher needs them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from gradlint.engine import Observer
from gradlint.facts import OptimizerFacts
from gradlint.hooks.sites import function_sources, optimizer_facts
from gradlint.hooks.weak import joined
from gradlint.target.sources import module_sources
from gradlint.watching.optimizers import Known


class _Named:
    """Parameters by path, as a model gives them."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self._parameters.items()


def facts_of_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> OptimizerFacts:
    """Return the facts of one optimizer among all watched parameters."""
    return optimizer_facts(optimizer, cast(Any, _Named(parameters)))


def together(optimizers: Iterable[OptimizerFacts]) -> OptimizerFacts | None:
    """Return several optimizers as one: their groups one after another."""
    found = list(optimizers)
    if not found:
        return None
    return OptimizerFacts(
        kind="+".join(dict.fromkeys(f.kind for f in found)),
        groups=tuple(group for f in found for group in f.groups),
        foreign=sum(f.foreign for f in found),
        duplicates=tuple(path for f in found for path in f.duplicates),
        has_state=any(f.has_state for f in found),
    )


def schedulers_of(optimizers: Iterable[Known]) -> dict[str, None]:
    """Return the classes of the schedulers that turn the rates of `optimizers`, in order.

    Whoever refers to an optimizer is found in a fifth of the time that a look at every object
    of the process takes.
    """
    alive = [optimizer for known in optimizers if (optimizer := known.optimizer()) is not None]
    kinds = _kinds(torch.optim.lr_scheduler.LRScheduler)
    things = gc.get_referrers(*alive) if alive else []
    # One that was asked for its `__dict__` refers to that instead.
    theirs = [t for t in things if type(t) is dict and "optimizer" in t and "last_epoch" in t]
    if theirs:
        things += gc.get_referrers(*theirs)
    return {type(thing).__name__: None for thing in things if type(thing) in kinds}


def _kinds(kind: type) -> set[type]:
    """Return a class and all that inherit from it: a set is faster than a million questions."""
    below: list[type] = kind.__subclasses__()
    return {kind}.union(*map(_kinds, below))


def with_sources(observer: Observer) -> None:
    """Add to each module's facts the user's line that builds it."""
    for label, model in observer.roots.items():
        sources = module_sources(model)
        functions = function_sources(sources)
        for inner, source in sources.items():
            path = joined(label, inner)
            facts = observer.facts_of_modules.get(path)
            if facts is not None and facts.source is None:
                observer.facts_of_modules[path] = replace(
                    facts, source=source, functions=functions.get(inner, {})
                )
