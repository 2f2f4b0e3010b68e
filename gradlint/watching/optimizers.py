"""Optimizers: which ones a loop steps, and what each of them holds."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from gradlint.facts import OptimizerFacts
from gradlint.observation import Site
from gradlint.watching.carry import Carry

_STEPS = register_optimizer_step_pre_hook.__code__.co_filename
"""Where torch wraps every optimizer's `step`."""

Told = Callable[[torch.optim.Optimizer], None]


class Known:
    """One optimizer of the loop."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.kind = type(optimizer).__name__
        self.had_state = len(optimizer.state) > 0
        self.steps = 0
        self.found = False
        """Whether it was found by what it holds, before any step of its own."""
        self.carry = Carry()
        self.facts: OptimizerFacts | None = None
        """As it was at its first step."""
        self.closure = False
        """Whether its steps run backward themselves."""
        self.shares = False
        """Whether it stepped after another optimizer's backward."""
        self.site: Site | None = None
        """Where the loss that its steps follow is kept."""

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters it holds now; groups may have been added."""
        optimizer = self.optimizer()
        if optimizer is None:
            return []
        return [p for group in optimizer.param_groups for p in group["params"]]

    def has_gradients(self) -> bool:
        """Whether any of its parameters has a gradient."""
        return any(p.grad is not None for p in self.parameters())

    def learning_rate(self) -> float | None:
        """Return the largest rate of its groups that can be read without waiting."""
        optimizer = self.optimizer()
        rates: list[float] = []
        for group in optimizer.param_groups if optimizer is not None else ():
            rate: Any = group.get("lr")
            if isinstance(rate, torch.Tensor):
                if rate.device.type == "cpu":
                    rates.append(rate.reshape(1).tolist()[0])
            elif rate is not None:
                rates.append(float(rate))
        return max(rates, default=None)


class Optimizers:
    """Told of every optimizer step in the process, and tells of those that matter.

    Args:
        begins: Called when the step of an optimizer that matters begins.
        ended: Called when it ended.
        matters: Whether an optimizer is one of the loop's.
    """

    def __init__(
        self, begins: Told, ended: Told, matters: Callable[[torch.optim.Optimizer], bool]
    ) -> None:
        self._begins = begins
        self._ended = ended
        self._matters = matters
        self._known: dict[int, Known] = {}
        self._handles: list[RemovableHandle] = []
        self._running: list[int] = []
        self.count_stepped = 0
        """Number of optimizers that stepped at least once."""

    def start(self) -> None:
        """Place the hooks."""
        self._handles = [
            register_optimizer_step_pre_hook(self._pre),
            register_optimizer_step_post_hook(self._post),
        ]

    def stop(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def know(self, optimizer: torch.optim.Optimizer) -> Known:
        """Return what is known of `optimizer`."""
        known = self._known.get(id(optimizer))
        if known is None or known.optimizer() is not optimizer:
            known = self._known[id(optimizer)] = Known(optimizer)
        return known

    def __iter__(self) -> Any:
        return iter(self._known.values())

    def knows(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether `optimizer` was seen before."""
        known = self._known.get(id(optimizer))
        return known is not None and known.optimizer() is optimizer

    def stepped_once(self, known: Known) -> None:
        """Count a step."""
        self.count_stepped += known.steps == 0
        known.steps += 1

    @property
    def stepped(self) -> list[Known]:
        """Those that stepped at least once."""
        return [known for known in self._known.values() if known.steps]

    @property
    def inside(self) -> bool:
        """Whether a step is running."""
        return bool(self._running)

    def raised(self) -> bool:
        """Whether a step began that is not running any more; forgets it."""
        if not self._running or _is_running():
            return False
        self._running.clear()
        return True

    def find(self, parameters: Iterable[nn.Parameter]) -> None:
        """Look through the process for optimizers that hold one of `parameters`."""
        own = {id(p) for p in parameters}
        for thing in gc.get_objects():
            if issubclass(type(thing), torch.optim.Optimizer) and id(thing) not in self._known:
                groups = getattr(thing, "param_groups", None) or ()
                if any(id(p) in own for group in groups for p in group["params"]):
                    self.know(thing).found = True

    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) in self._running:  # its last step raised
            del self._running[self._running.index(id(optimizer)) :]
        self._running.append(id(optimizer))
        # An optimizer that wraps another steps around it: one step.
        if len(self._running) == 1 and self._matters(optimizer):
            self._begins(optimizer)

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) in self._running:
            del self._running[self._running.index(id(optimizer)) :]
        if not self._running and self._matters(optimizer):
            self._ended(optimizer)


def _is_running() -> bool:
    """Whether a caller is an optimizer's step."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _STEPS and frame.f_code.co_name == "wrapper":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
