"""The module side of a step: which modules ran, in which order, on what."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gradlint.finding import Source
from gradlint.hooks.parameters import ParameterReader
from gradlint.hooks.ranks import class_of
from gradlint.hooks.sites import module_facts
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.hooks.weak import WeakMap, joined
from gradlint.trace import ModuleFacts


class ModuleReader:
    """Keeps what is known of modules; `modules`, `facts` and `depths` are by path.

    Args:
        roots: Models by their labels.
    """

    def __init__(self, roots: Mapping[str, nn.Module]) -> None:
        self.modules: WeakMap[nn.Module] = WeakMap()
        self.facts: dict[str, ModuleFacts] = {}
        self.depths: dict[str, int] = {}
        self.split = False
        """Whether parameters are distributed: whole ones stand in for them in a forward."""
        self.stand_ins: dict[int, str] = {}
        """Paths of the parameters that they stand in for, by ``id``."""
        self._roots = roots
        self._order: dict[str, int] = {}
        """As `depths`, but of whole forwards, once there was one: a model may be met within its
        first, whose earlier layers were not seen."""
        self._whole: set[str] = set()
        self._given: list[tuple[weakref.ref[Tensor], int | None]] = []
        """The tensors that the model was called on, and how often they had been written to."""

    def admit(
        self, model: nn.Module, label: str, sources: Mapping[str, Source] | None = None
    ) -> None:
        """Know the modules of `model`, too; facts that are there stay."""
        found = module_facts(model, sources, label)
        self.facts.update({p: facts for p, facts in found.items() if p not in self.facts})
        for path, module in model.named_modules():
            self.modules[joined(label, path)] = module

    def enter(
        self,
        path: str,
        module: nn.Module,
        inputs: Any,
        *,
        again: bool,
        parameters: ParameterReader,
    ) -> None:
        """Note that a module starts, and on what.

        Args:
            path: Its path.
            module: The module.
            inputs: Its arguments.
            again: Whether it ran before in this step.
            parameters: The models' parameters.
        """
        facts = self.facts.get(path)
        if facts is None:
            return
        if self.split or class_of(module) is not type(module):  # split after we came
            self.split = True
            self._note_stand_ins(path, module, parameters)
        if again:
            if module.training and not facts.training:  # evaluated first, then trained
                self.facts[path] = replace(facts, training=True)
            return
        # Noted before the module runs: a batch too small for it is a fact it dies of.
        given = [t for _, t in named_tensors(inputs, "input")]
        shape = tuple(given[0].shape) if given else None
        if path in self._roots:
            self._begins_whole(path)
            self._given = [(weakref.ref(t), _version(t)) for t in given]
        raw = bool(given) and self._is_given(given[0])
        self.facts[path] = replace(
            facts, training=module.training, input_shape=shape, input_given=raw
        )

    def left(self, path: str) -> tuple[int, int]:
        """Return a module's depth and its place in the order of calls, when it has returned."""
        return (
            self.depths.setdefault(path, len(self.depths)),
            self._order.setdefault(path, len(self._order)),
        )

    def returned(
        self, path: str, tensors: Sequence[Tensor], *, order: int, calls: int, first: bool
    ) -> None:
        """Note what a module returned, and how often it was called."""
        facts = self.facts.get(path)
        if facts is not None and first:
            shape = tuple(tensors[0].shape) if tensors else None
            self.facts[path] = replace(facts, depth=order, calls=calls, output_shape=shape)
        elif facts is not None:
            self.facts[path] = replace(facts, calls=calls)

    def complete(self, paths: set[str]) -> None:
        """Complete the facts of lazy modules, which learned their shapes in the first forward."""
        now = {
            path: facts
            for label, model in self._roots.items()
            for path, facts in module_facts(model, label=label).items()
        }
        for path in paths:
            kind, options = now[path].kind, now[path].options
            self.facts[path] = replace(self.facts[path], kind=kind, options=options)

    def _note_stand_ins(self, path: str, module: nn.Module, parameters: ParameterReader) -> None:
        """Note the whole parameters that a module runs with instead of its parts."""
        for name, parameter in module._parameters.items():
            own = joined(path, name)
            if own in parameters.facts and parameters.parameters.get(own) is not parameter:
                self.stand_ins[id(parameter)] = own

    def _begins_whole(self, root: str) -> None:
        """Count the order of calls anew at the first forward of a model that is seen whole."""
        if root in self._whole:
            return
        self._whole.add(root)
        inside = f"{root}." if root else ""
        self._order = {p: n for p, n in self._order.items() if not p.startswith(inside)}

    def _is_given(self, tensor: Tensor) -> bool:
        """Whether it is what the model was called on, or all of it in another shape, as it was."""
        for ref, version in self._given:
            known = ref()
            if known is None or known.numel() != tensor.numel() or _version(known) != version:
                continue
            if known is tensor or _whole(known) is _whole(tensor):
                return True
        return False


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor was written to; inference tensors do not count."""
    return None if tensor.is_inference() else tensor._version


def _whole(tensor: Tensor) -> Tensor:
    """Return the tensor of which this one is a view, or itself."""
    return tensor if tensor._base is None else tensor._base
