"""Compiled: modules that torch.compile runs, into which nobody can look."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import nn

from gradlint.facts import ModuleFacts
from gradlint.graph import Graph
from gradlint.hooks.weak import joined
from gradlint.watching.roots import is_compiled, unwrapped

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop

_OF_COMPILED = "CompiledFunction"
"""How the graph calls code that a compiler's own autograd runs."""


class Compiled:
    """Paths of compiled modules; of those that had run before, it is known that they had.

    No hook inside compiled code tells anything, whenever it was placed. One that was placed
    after the first call is, besides, not even looked for (pytorch/pytorch#117758).
    """

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._whole: set[str] = set()
        self._ran: set[str] = set()
        """Those that had gradients when they were first seen: a compiled step was made before."""
        self._around: list[str] | None = None

    def __contains__(self, label: object) -> bool:
        """Whether the model `label` is compiled as a whole, and left alone."""
        return label in self._whole

    def admit(self, label: str, model: nn.Module) -> None:
        """Note what is compiled of a model, as it was given."""
        inner = unwrapped(model)
        if is_compiled(model) or is_compiled(inner):
            self._whole.add(label)
        for inside, module in inner.named_modules():
            path = joined(label, inside)
            compiled = is_compiled(module) or (not inside and label in self._whole)
            if compiled and not any(path.startswith(f"{p}.") for p in self._paths):
                self._paths.append(path)
            if (compiled or not inside) and any(p.grad is not None for p in module.parameters()):
                self._ran.add(path)

    def found(self, loop: Loop) -> tuple[str, ...]:
        """Return all of them, those too that are compiled by what is around them."""
        if loop.looking:
            return tuple(self._paths)
        if self._around is None:  # looking through the whole process takes a while
            self._around = [label for label in _around(loop) if label not in self._paths]
        return (*self._paths, *self._around)

    def blind(self, loop: Loop) -> tuple[str, ...]:
        """Return those that were compiled, and ran, before anybody watched."""
        modules = loop.observer.facts_of_modules
        return tuple(p for p in self.found(loop) if p in self._ran and _is_dark(p, modules))


def _is_dark(path: str, modules: Mapping[str, ModuleFacts]) -> bool:
    """Whether no module inside told of a call."""
    return not any(facts.calls for p, facts in modules.items() if p.startswith(f"{path}."))


def _around(loop: Loop) -> Iterator[str]:
    """Yield labels of models that were never seen to be called, and train as compiled code."""
    modules = loop.observer.facts_of_modules
    for label, model in list(loop.observer.roots.items()):
        own = {p for p in loop.gradients.fed if p.startswith(f"{label}.")}
        called = modules[label].calls or not _is_dark(label, modules)
        if own and not called and (_reads(loop.observer.graph, own) or _is_wrapped(model)):
            yield label


def _reads(graph: Graph, paths: set[str]) -> bool:
    """Whether compiled code in the graph reads one of these parameters."""
    return any(op.name.startswith(_OF_COMPILED) and paths & {*op.parameters} for op in graph)


def _is_wrapped(model: nn.Module) -> bool:
    """Whether somebody compiled the model for itself, or something that it is a part of."""
    things = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    compiled = [m for m in things if type(m).__name__ == "OptimizedModule" or is_compiled(m)]
    return any(part is model for m in compiled for part in m.modules())
