"""Updates by hand: parameters that change after a backward that no optimizer waited for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from gradlint.hooks.inert import Inert

_SAMPLE = 256

Told = Callable[[str, nn.Module, Any], None]


class ByHand:
    """Parameters as they were when a backward ended, and a hook on the next forward.

    Versions tell of every change but one through ``.data``; for that a few entries are
    compared. On a device other than the CPU that waits for it, so there only versions count.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], roots: Mapping[str, nn.Module], told: Told
    ) -> None:
        trained = [p for p in parameters if p.requires_grad and p.grad is not None]
        self._versions = [(weakref.ref(p), p._version) for p in trained]
        self._samples = [
            (weakref.ref(p), p.detach().reshape(-1)[:_SAMPLE].clone())
            for p in trained[:16] + trained[-4:]
            if p.device.type == "cpu"
        ]
        self._gates = ExitStack()
        for label, model in roots.items():
            handle = model.register_forward_pre_hook(_Gate(label, told), with_kwargs=True)
            self._gates.callback(handle.remove)

    def changed(self) -> bool:
        """Whether any of them is another now."""
        for ref, version in self._versions:
            parameter = ref()
            if parameter is not None and parameter._version != version:
                return True
        for ref, sample in self._samples:
            parameter = ref()
            if parameter is None:
                continue
            now = parameter.detach().reshape(-1)[:_SAMPLE]
            if now.shape == sample.shape and not torch.equal(now, sample):
                return True
        return False

    def close(self) -> None:
        """Remove the hooks."""
        self._gates.close()


class _Gate:
    """Tells of a model's forward before it runs."""

    def __init__(self, label: str, told: Told) -> None:
        self.label = label
        self.told = told

    def __call__(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        # Torch forgets that a hook wants keywords when it is removed in the same call.
        self.told(self.label, module, (args, kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return (Inert, ())
