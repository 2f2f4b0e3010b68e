"""Leaves of the graph that learn and are no parameters of the model: tensors, layers made anew."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlint.facts import Event
from gradlint.hooks.graph import CapturedGraph, attribute_of

FORWARDS = 3
"""Forwards in which other weights stand in the same places: by then they are made anew."""

MAX_ENTRIES = 1 << 20
"""Entries of a tensor that are kept, to tell whether it moved."""

_SAMPLE = 64


@dataclass(slots=True)
class _Plain:
    """A tensor that is an attribute of a module, as it was when it was first seen."""

    tensor: weakref.ref[Tensor]
    version: int
    entries: Tensor


@dataclass(slots=True)
class _Made:
    """A parameter that no model knows, in one forward."""

    tensor: weakref.ref[Tensor]
    shape: tuple[int, ...]
    entries: Tensor


class Leaves:
    """Follows such leaves from forward to forward; reads nothing back before `events`."""

    def __init__(self) -> None:
        self._plain: dict[tuple[str, str], _Plain] = {}
        self._made: list[list[_Made]] = []
        self._anew = 0

    def note(self, captured: CapturedGraph, modules: Mapping[str, nn.Module]) -> None:
        """Note the leaves of a graph, before backward frees it."""
        leaves = [captured.nodes[op.id].variable for op in captured.graph if op.kind == "input"]
        for leaf in leaves:
            home = attribute_of(leaf, modules)
            if home is not None and home not in self._plain:
                self._plain[home] = _Plain(
                    weakref.ref(leaf), leaf._version, _entries(leaf, MAX_ENTRIES)
                )
        made = [leaf for leaf in leaves if isinstance(leaf, nn.Parameter) and leaf.ndim > 1]
        if self._anew >= FORWARDS or (not made and not self._made):
            return
        shapes = [tuple(leaf.shape) for leaf in made]
        others = all(m.tensor() is None for forward in self._made for m in forward)
        if not others or (self._made and shapes != [m.shape for m in self._made[0]]):
            self._made, self._anew = [], 0
        self._made.append(
            [_Made(weakref.ref(leaf), tuple(leaf.shape), _entries(leaf, _SAMPLE)) for leaf in made]
        )
        self._anew = len(self._made)

    def events(self, modules: Mapping[str, nn.Module]) -> Iterator[Event]:
        """Yield "plain-tensor" and "made-anew"; see `Event`."""
        for (path, attribute), seen in self._plain.items():
            module, tensor = modules.get(path), seen.tensor()
            same = module is not None and vars(module).get(attribute) is tensor
            if tensor is None or not same:
                continue
            moved = tensor._version != seen.version or not torch.equal(
                _entries(tensor, MAX_ENTRIES), seen.entries
            )
            if not moved and bool(seen.entries.any()) and not _is_held(tensor, modules):
                detail = {"attribute": attribute, "parameters": tensor.numel()}
                yield Event("plain-tensor", module=path, detail=detail)
        if self._anew < FORWARDS or not self._made[0]:
            return
        first, *later = self._made
        differ = [
            made
            for place, made in enumerate(first)
            if all(not torch.equal(made.entries, again[place].entries) for again in later)
        ]
        if differ:
            shapes = [list(made.shape) for made in differ]
            detail = {"shapes": shapes, "forwards": len(self._made)}
            yield Event("made-anew", module="", detail=detail)


def _entries(tensor: Tensor, most: int) -> Tensor:
    """Return a copy of the first entries, where the tensor is."""
    return tensor.detach().reshape(-1)[:most].clone()


def _is_held(tensor: Tensor, modules: Mapping[str, nn.Module]) -> bool:
    """Whether an optimizer that is an attribute of a module holds `tensor`."""
    return any(
        parameter is tensor
        for module in modules.values()
        for value in vars(module).values()
        if isinstance(value, torch.optim.Optimizer)
        for group in value.param_groups
        for parameter in group["params"]
    )
