"""Updates by hand: parameters that change after a backward that no optimizer waited for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradlint.hooks.inert import Inert
from gradlint.watching.full_look import FullLook
from gradlint.watching.guard import guarded_by

if TYPE_CHECKING:
    from gradlint.watching.interval import Interval
    from gradlint.watching.loop import Loop

_SAMPLE = 256

Told = Callable[[str, nn.Module, Any], None]


class ByHand:
    """Tells updates that no optimizer makes: a backward followed by changed parameters.

    Args:
        loop: Whose steps they are.
    """

    def __init__(self, loop: Loop) -> None:
        self.count = 0
        """Updates made so."""
        self._loop = loop
        self._left: _Left | None = None

    @property
    def waits(self) -> bool:
        """Whether a backward ended that no optimizer waits for."""
        return self._left is not None

    def backward_ended(self, interval: Interval) -> None:
        """After a backward that no optimizer waits for: the next forward tells of an update."""
        loop = self._loop
        if loop.given or loop.optimizers.inside or loop.holders():
            return
        interval.initial = self.count == 0
        loop.ranks.update_begins(loop, None, interval.number)
        loop.gradients.measure(interval, None)
        if interval.closeup is not None:
            interval.closeup.before_update()
        self.rest()
        parameters = list(loop.observer.parameters.values())
        self._left = _Left(parameters, loop.observer.roots, self.forward_begins)

    def forward_begins(self, label: str, model: nn.Module, inputs: Any) -> None:
        """A model runs, and an update by hand may have been made before."""
        guarded_by(self._loop, self._forward_begins, label, model, inputs)

    def _forward_begins(self, label: str, model: nn.Module, inputs: Any) -> None:
        interval = self._loop.interval
        waits = interval is not None and self.waits and interval.backwards
        if not waits or not torch.is_grad_enabled():
            return
        self.look()
        opened = self._loop.interval
        if opened is not interval and opened is not None and isinstance(opened.closeup, FullLook):
            opened.closeup.enter(label, model, inputs)  # its own hook came too late for this call

    def look(self) -> None:
        """Close the step if the parameters changed since its backward."""
        loop, left = self._loop, self._left
        interval = loop.interval
        if interval is None or left is None or not left.changed():
            return
        self.rest()
        self.count += 1
        if loop.discover and self.count > 2:
            loop.discovery.stop()
        loop.step_made(interval, None)
        loop.gradients.carry_by_hand.stepped(list(loop.observer.parameters.values()))

    def rest(self) -> None:
        """Wait for nothing; remove the hooks."""
        left, self._left = self._left, None
        if left is not None:
            left.close()


class _Left:
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
