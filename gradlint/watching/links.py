"""Links: what parts of a model that a loop calls one by one hand to each other without gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from gradlint.hooks.tensor_facts import named_tensors
from gradlint.loop_facts import DetachedFacts, QuietFacts

MOST = 64
"""Outputs of one step that are followed: an episode calls a model hundreds of times."""


class Links:
    """Of the steps that are looked at in full: detached outputs that are read, and quiet calls.

    An output is followed until backward begins, so that a tensor with its memory is the same
    numbers; until then autograd keeps most of them anyway. Outputs of quiet calls are not kept:
    as long as somebody else keeps their memory, they are known by it.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[str, Tensor]] = {}
        """By address, outputs of this step that carry a gradient, and what made them."""
        self._lent: dict[int, tuple[str, StorageWeakRef]] = {}
        """By address, outputs of this step's quiet calls: what made them, and their memory."""
        self._quiet: dict[str, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {}
        self._called = False
        """Whether anything was called with gradient in this step."""
        self._detached: dict[tuple[str, str], None] = {}
        self._shapes: dict[str, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {}
        self._steps: dict[str, int] = {}

    def begin(self) -> None:
        """A step begins."""
        self._made.clear()
        self._lent.clear()
        self._quiet.clear()
        self._called = False

    def enter(self, path: str, inputs: Any) -> None:
        """A part is called, from outside of any other, and with gradient."""
        self._called = True
        for tensor in _floating(inputs):
            source = None if tensor.requires_grad else self._source(_address(tensor))
            if source is not None and source != path:
                self._detached[source, path] = None

    def _source(self, address: int) -> str | None:
        """Return what made the tensor at an address in this step."""
        if address in self._made:
            return self._made[address][0]
        path, memory = self._lent.get(address, (None, None))
        if memory is None or memory.expired():  # type: ignore[no-untyped-call]
            return None
        return path

    def leave(self, path: str, output: Any) -> None:
        """Such a part returned."""
        for tensor in _floating(output):
            if tensor.requires_grad and len(self._made) < MOST:
                self._made[_address(tensor)] = path, tensor

    def quiet(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """A part was called without gradient; before any other of this step with one, it counts."""
        given, made = _floating(inputs), _floating(output)
        if not module.training:
            return
        for tensor in made:
            if len(self._lent) < MOST:
                memory = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
                self._lent[_address(tensor)] = path, memory
        if not self._called and given and made:
            self._quiet[path] = tuple(given[0].shape), [tuple(t.shape) for t in made]

    def end(self) -> None:
        """Backward begins: what ran before belongs to it."""
        for path, shapes in self._quiet.items():
            self._steps[path] = self._steps.get(path, 0) + 1
            self._shapes[path] = shapes
        self.begin()

    @property
    def detached(self) -> tuple[DetachedFacts, ...]:
        """Parts whose detached output another part was called on."""
        return tuple(DetachedFacts(source, reader) for source, reader in self._detached)

    @property
    def ran_quietly(self) -> tuple[QuietFacts, ...]:
        """Parts in training mode that ran without gradient before the rest of the step."""
        return tuple(
            QuietFacts(path, steps, self._shapes[path][0], tuple(self._shapes[path][1]))
            for path, steps in self._steps.items()
        )


def _floating(value: Any) -> list[Tensor]:
    """Return the dense tensors of real numbers in what a module was given or returned."""
    return [
        t for _, t in named_tensors(value, "")
        if type(t) in (Tensor, nn.Parameter) and t.is_floating_point() and t.numel()
        and t.layout is torch.strided and not t.is_meta
    ]  # fmt: skip


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
