"""FullLook: a step with every metric, the autograd graph and its gains."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.hooks.ranks import class_of, here
from gradlint.hooks.weak import joined
from gradlint.observation import Site
from gradlint.readout import Unread
from gradlint.watching.closeup import Backward
from gradlint.watching.facts_of import with_sources
from gradlint.watching.first_non_finite import in_gains
from gradlint.watching.guard import guarded_by
from gradlint.watching.initial import doubled

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop

MAX_FORWARDS = 256
"""Forwards recorded in one step: an episode of reinforcement learning has hundreds."""


SETTLED = 50
"""Steps after which running statistics have followed the batches' (momentum 0.1: 0.9^50)."""

FOLLOWS = 1e-4
"""Momentum below which running statistics do not follow at all."""


class FullLook:
    """Hooks on every module, and on the graph of the first backward.

    Args:
        loop: The loop.
        number: Number of the step.
        keep_calls: See `Observer.open_step`.
    """

    def __init__(self, loop: Loop, number: int, *, keep_calls: bool) -> None:
        self.loop = loop
        self.number = number
        self.forwards = 0
        self.backwards = 0
        self._captured = False
        self._recording = False
        self._paused = 0
        self._hooks = ExitStack()
        observer = loop.observer
        for label, model in list(observer.roots.items()):
            loop.refresh(label, model, since=number)
        observer.open_step(number, keep_calls=keep_calls)
        loop.data.begin_step()
        for label, model in list(observer.roots.items()):
            self.admit(model, label)
        self._hooks.enter_context(observer.calls.noting_packed())

    def admit(self, model: nn.Module, label: str) -> None:
        """Place hooks on a model; a compiled one stays closed."""
        if label not in self.loop.compiled:
            self._hooks.enter_context(HookManager(model, self, label))

    # -- what modules tell ------------------------------------------------------------

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """A module starts; see `HookManager`."""
        guarded_by(self.loop, self._enter, path, module, inputs)

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module ended; see `HookManager`."""
        guarded_by(self.loop, self._leave, path, module, inputs, output)

    def _enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        observer = self.loop.observer
        if not observer.calls.open:
            if _is_redirected(module):
                return
            if self._paused or not torch.is_grad_enabled():  # an evaluation
                self._paused += 1
                return
            self.forwards += 1
            if self.forwards > MAX_FORWARDS:
                self._hooks.close()
                return
            self.loop.data.begin(inputs)
            self.loop.data.links.enter(path, inputs)
            self.loop.data.terms.enter(inputs)
            self.loop.data.later.enter(path, inputs)
        observer.enter(path, module, inputs)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            self.number > SETTLED or (module.momentum is not None and module.momentum < FOLLOWS)
        ):
            self._measure_gap(path, module, inputs)

    def _measure_gap(self, path: str, module: nn.modules.batchnorm._BatchNorm, inputs: Any) -> None:
        """Compare running statistics with the batch's, before the module updates them."""
        given = inputs[0][0] if inputs[0] else None
        mean, var = module.running_mean, module.running_var
        if not module.training or mean is None or var is None or not isinstance(given, Tensor):
            return
        axes = [axis for axis in range(given.ndim) if axis != 1]
        observer = self.loop.observer
        with torch.no_grad():
            batch_var, batch_mean = torch.var_mean(given.detach().float(), dim=axes, correction=0)
            site = Site(path, class_of(module).__name__, observer.depths.get(path, 0), path)
            observer.put_at("batch_statistics_gap", site, mean, var, batch_mean, batch_var)

    def _leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        observer = self.loop.observer
        if observer.calls.open:
            observer.leave(path, module, inputs, output)
            if not observer.calls.open:
                self.loop.data.links.leave(path, output)
                if not self._is_judge(path, module, output):
                    observer.outputs = output
                    self.loop.data.later.leave(path, output)
        elif self._paused:
            self._paused -= 1
            if not self._paused:
                self.loop.data.links.quiet(path, module, inputs, output)

    def _is_judge(self, path: str, module: nn.Module, output: Any) -> bool:
        """Whether a part of the model, called beside it, only judges what it returned.

        Lightning's modules hold their criterion and their metrics.
        """
        if path in self.loop.observer.roots or next(module.parameters(), None) is not None:
            return False
        return isinstance(output, Tensor) and (output.ndim == 0 or not output.requires_grad)

    # -- what the loop tells ----------------------------------------------------------

    def backward_begins(self, loss: Tensor | None, *, create_graph: bool) -> None:
        """Read the graph behind the step's first loss, and be ready to measure its gains."""
        self._paused = 0
        self.backwards += 1
        self.loop.data.links.end()
        observer = self.loop.observer
        if loss is None or loss.grad_fn is None:
            return
        self.loop.data.terms.note(loss, self.loop.known_parameters())
        if not self._captured:
            self._captured = True
            observer.forward_done(loss, gains=not create_graph, note_loss=False)
            self.loop.data.note(observer, loss, self.number)
            self.loop.data.later.note(observer, self.number)
            if observer.recorder is not None:
                observer.recorder.__enter__()
                self._recording = True
        else:
            self.loop.data.note_another(observer, loss, self.number)
        observer.in_backward = True

    def begin_anew(self) -> None:
        """Forget the graph that was read: it was another network's."""
        if self._captured:
            self._captured = False
            self.loop.observer.forget_graph()
        self.backwards = 0

    def backward_ended(self) -> None:
        """Remove the hooks of this backward, and let its graph go."""
        observer = self.loop.observer
        observer.in_backward = False
        if self._recording and observer.recorder is not None:
            observer.recorder.__exit__(None, None, None)
        self._recording = False
        observer.release()

    def rest(self) -> None:
        """Remove hooks; what was measured stays."""
        self._hooks.close()

    def measure(self, backward: Backward, without: Collection[int], *, initial: bool) -> None:
        """Measure gradients, and at the start the weights themselves."""
        self.loop.observer.weights.gradients(initial=initial, symmetry=True, without=without)

    def before_update(self) -> None:
        """Keep the weights."""
        self.loop.observer.before_update()

    def close(self, *, initial: bool) -> None:
        """Measure the update, remove hooks, send the numbers on their way."""
        loop, observer, number = self.loop, self.loop.observer, self.number
        loop.forwards += self.forwards
        loop.looked_at_backwards += self.backwards
        loop.data.terms.end(number, loop.known_parameters(), loop.series.readback)
        loop.data.begin_step()
        observer.after_update()
        self._watch_frozen()
        if initial:
            observer.close_window()
        self._hooks.close()
        unread = observer.unread()
        observer.close_step()
        scale = loop.scaling.scale
        if scale is not None:
            _unscale(unread, scale)
        if number == 1:
            with_sources(observer)

        def take(values: list[float]) -> None:
            self._deliver(unread, values, initial=initial)
            loop.numbers_arrived(number)

        loop.series.readback.submit(unread.tensors, take)

    def discard(self) -> None:
        """Remove hooks; nothing of this step is kept."""
        self.loop.data.begin_step()
        self._hooks.close()
        self.loop.observer.unread()
        self.loop.observer.close_step()
        self.loop.observer.weights.forget()

    # -- at the end -------------------------------------------------------------------

    def _deliver(self, unread: Unread, values: list[float], *, initial: bool) -> None:
        observer = self.loop.observer
        before, flows = len(observer.observations), len(observer.flows)
        seen = observer.deliver(unread, values)
        if initial:
            observer.observations[before:] = doubled(observer.observations[before:])
            again = observer.flows[flows:]
            observer.flows[flows:] = [replace(flow, step=0) for flow in again] + again
        norm = seen.get(("total_gradient_norm", ""), 0.0)
        if not math.isfinite(norm) and self.loop.accuses:
            observer.events.append(in_gains(observer, unread, norm))

    def _watch_frozen(self) -> None:
        """Measure whether parameters that need no gradient moved since they were last seen."""
        observer, known = self.loop.observer, self.loop.frozen
        for path, parameter in observer.parameters.items():
            if parameter.requires_grad or parameter.is_meta or not parameter.is_floating_point():
                known.pop(path, None)
                continue
            now = here(parameter.detach()).reshape(-1)[:4096].to(torch.float64)
            before = known.get(path)
            if before is not None and before.shape == now.shape:
                size = torch.linalg.vector_norm(before)
                change = torch.linalg.vector_norm(now - before)
                ratio = change / torch.where(size > 0, size, torch.ones_like(size))
                observer.put("frozen_change", ratio, observer.weights.site(path))
            known[path] = now.clone()


def _is_redirected(module: nn.Module) -> bool:
    """Whether Lightning calls a module's `training_step` by way of DDP and its `forward`."""
    return getattr(vars(module).get("forward"), "__name__", "") == "wrapped_forward"


def _unscale(unread: Unread, scale: Tensor) -> None:
    """Divide a GradScaler's scale out of the norms that backward met."""
    name = "activation_grad_norm"
    unread.pending[:] = [
        (metric, site, step, value / scale.to(value.device) if metric == name else value)
        for metric, site, step, value in unread.pending
    ]
    if unread.recorder is not None:
        gains = unread.recorder.tensors
        gains[:] = [value / scale.to(value.device) for value in gains]


def refreshed(loop: Loop, label: str, model: nn.Module, since: int) -> bool:
    """Take up parameters that were added, replaced or unfrozen since; whether there were any.

    Of one in the place of another that an optimizer held, what is seen from step `since` on is
    its own.
    """
    observer = loop.observer
    known, facts_of = observer.parameters, observer.facts_of_parameters
    own = {joined(label, inner): p for inner, p in model.named_parameters()}
    new = [path for path, p in own.items() if known.get(path) is not p]
    thawed = (
        path in facts_of and facts_of[path].requires_grad != own[path].requires_grad for path in own
    )
    if not new and not any(thawed):
        return False
    replaced = [path for path in new if path in facts_of and loop.held.get(path)]
    observer.admit(model, label=label)
    if loop.ranks.world > 1:  # ranks share parameters out, and put them together again
        return True
    held = {id(p) for optimizer in loop.optimizers for p in optimizer.parameters()}
    for path in replaced:
        if known.get(path) is own[path]:  # else another model's
            loop.held[path] = id(own[path]) in held
            loop.replaced[path] = since
    return True
