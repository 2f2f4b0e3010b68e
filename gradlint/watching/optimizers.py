"""Optimizers: which ones a loop steps, and what each of them holds."""

from __future__ import annotations

import gc
import sys
import threading
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

_TURN = 64
"""Steps of a loop after which an optimizer that made none of them is no longer in turn."""

_MOST = 64
"""Optimizers that are remembered when they are gone and another one stands in their place."""

Told = Callable[[torch.optim.Optimizer], None]


class _OfThread(threading.local):
    """What steps run in a thread: those of another one are not within them."""

    def __init__(self) -> None:
        self.running: list[int] = []


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
        self.paths: frozenset[str] = frozenset()
        """Parameters it held at its first step."""
        self.matters = False
        """Whether it was found to be one of the loop's."""
        self.due = sys.maxsize
        """After so many steps the next is asked for where nothing else is looked at, too."""
        self.first_at = 0
        self.last_at = 0
        """The loop's steps that were its first and its latest."""

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
        if optimizer is not None and len(optimizer.param_groups) == 1:
            only = optimizer.param_groups[0].get("lr")
            if type(only) is float:
                return only
        rates: list[float] = []
        for group in optimizer.param_groups if optimizer is not None else ():
            rate: Any = group.get("lr")
            if type(rate) is float:
                rates.append(rate)
            elif isinstance(rate, torch.Tensor):
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
        stranger: Called when the step of one that does not matter begins.
        goes_on: Whether a second one follows the same loss as a first one that is gone.
    """

    def __init__(
        self,
        begins: Told,
        ended: Told,
        matters: Callable[[torch.optim.Optimizer], bool],
        stranger: Told,
        goes_on: Callable[[Known, Known], bool],
    ) -> None:
        self._begins = begins
        self._stranger = stranger
        self._ended = ended
        self._matters = matters
        self._goes_on = goes_on
        self._known: dict[int, Known] = {}
        self._handles: list[RemovableHandle] = []
        self._of_thread = _OfThread()
        self.rests = False
        """Whether the open step asks nothing of an optimizer that stepped before."""
        self.count_stepped = 0
        """Number of optimizers that stepped of late."""

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
            if known is not None and known.steps and len(self._known) < _MOST:
                self._known[-id(known)] = known  # it is gone, and what it did is not
            known = self._known[id(optimizer)] = Known(optimizer)
        return known

    def __iter__(self) -> Any:
        return iter(self._known.values())

    def only(self) -> Known | None:
        """Return the one that stepped, where there is no other."""
        alive = [known for known in self._known.values() if known.optimizer() is not None]
        return alive[0] if len(alive) == 1 and alive[0].steps else None

    def knows(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether `optimizer` was seen before."""
        known = self._known.get(id(optimizer))
        return known is not None and known.optimizer() is optimizer

    def stepped_once(self, known: Known, number: int) -> None:
        """Count a step: the loop's step `number`."""
        if known.steps == 0:
            known.first_at = number
            self._supersede(known)
        known.steps += 1
        known.last_at = number
        if len(self._known) == 1:
            self.count_stepped = 1
        elif known.first_at == number or number % _TURN == 0:
            late = [k for k in self.stepped if number - k.last_at < _TURN]
            self.count_stepped = sum(k.optimizer() is not None for k in late)

    def _supersede(self, new: Known) -> None:
        """Let an optimizer take the place of one of its kind that is gone, and held the same."""
        for key, old in list(self._known.items()):
            gone = old is not new and old.steps and old.optimizer() is None
            alike = gone and old.kind == new.kind and old.paths & new.paths
            if alike and self._goes_on(old, new):
                new.first_at = min(new.first_at, old.first_at)
                new.site = new.site or old.site
                del self._known[key]

    @property
    def _running(self) -> list[int]:
        return self._of_thread.running

    @property
    def running(self) -> Known | None:
        """The one whose step is running, if one is."""
        return self._known.get(self._running[0]) if self._running else None

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

    def find(self, parameters: Iterable[nn.Parameter], *, everywhere: bool) -> None:
        """Mark the optimizers that hold one of `parameters`; `everywhere` in the process."""
        own = {id(p) for p in parameters}
        for thing in gc.get_objects() if everywhere else ():
            if issubclass(type(thing), torch.optim.Optimizer) and id(thing) not in self._known:
                groups = getattr(thing, "param_groups", None) or ()
                if any(id(p) in own for group in groups for p in group["params"]):
                    self.know(thing).found = True
        for known in self._known.values():
            known.found = known.found or any(id(p) in own for p in known.parameters())

    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        running = self._running
        if id(optimizer) in running:  # its last step raised
            del running[running.index(id(optimizer)) :]
        running.append(id(optimizer))
        # An optimizer that wraps another steps around it: one step.
        if len(running) > 1:
            return
        if not self._counts(optimizer):
            self._stranger(optimizer)
        elif not self.rests or not 0 < (known := self._known[id(optimizer)]).steps < known.due:
            self._begins(optimizer)

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        running = self._running
        if id(optimizer) in running:
            del running[running.index(id(optimizer)) :]
        if not running and self._counts(optimizer):
            self._ended(optimizer)

    def _counts(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it is one of the loop's; once it is, it stays so."""
        known = self._known.get(id(optimizer))
        if known is not None and known.matters and known.optimizer() is optimizer:
            return True
        if not self._matters(optimizer):
            return False
        self.know(optimizer).matters = True
        return True


def _is_running() -> bool:
    """Whether a caller is an optimizer's step."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _STEPS and frame.f_code.co_name == "wrapper":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
