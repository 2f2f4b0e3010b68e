"""Loop: what happens in a training loop that we do not own, seen from the outside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradlint.engine import Observer, Unread
from gradlint.hooks import switchboard
from gradlint.hooks.inert import Inert
from gradlint.hooks.manager import HookManager, graph_task
from gradlint.hooks.weak import joined
from gradlint.observation import MODEL, Site
from gradlint.probes.wiring import unregistered
from gradlint.trace import Event
from gradlint.watching.by_hand import ByHand
from gradlint.watching.cadence import FIRST_LIGHT, Cadence, Look
from gradlint.watching.clips import Clips
from gradlint.watching.data import Data
from gradlint.watching.facts_of import facts_of_optimizer, with_sources
from gradlint.watching.first_non_finite import in_gains, in_loss, in_row
from gradlint.watching.guard import guarded
from gradlint.watching.initial import doubled
from gradlint.watching.interval import Interval
from gradlint.watching.light import Layout, Light, local, norms
from gradlint.watching.optimizers import Known, Optimizers
from gradlint.watching.readback import Readback
from gradlint.watching.records import Records
from gradlint.watching.roots import Discovery, is_compiled, is_trained_before, unwrapped
from gradlint.watching.scaling import Scaling

MAX_FORWARDS = 256
"""Forwards recorded in one step: an episode of reinforcement learning has hundreds."""

MAX_BACKWARDS = 8
"""Backwards looked at in one step; a loop that never steps must not pay for ever."""


class _Gate:
    """Tells of a model's forward before it runs."""

    def __init__(self, loop: Loop, label: str) -> None:
        self.loop = loop
        self.label = label

    def __call__(self, module: nn.Module, args: Any, kwargs: Any = None) -> None:
        # Torch forgets that a hook wants keywords when it is removed in the same call.
        self.loop.forward_begins(self.label, module, (args, kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return (Inert, ())


class Loop(switchboard.Ear):
    """Hooks in place and numbers so far; `Watcher` is what users see.

    Args:
        models: Models by label; more may be discovered.
        optimizers: The optimizers to follow; none follows every one that holds a parameter
            of a model, and with `discover` every one.
        every: See `Cadence`.
        budget: See `Cadence`.
        discover: Whether to look for models.
        on_step: Called after each step with its number, outside gradlint's own time.
        on_numbers: Called when the numbers of a looked-at step have arrived, with its number.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module] | None = None,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        *,
        every: int | Literal["auto"] = "auto",
        budget: float = 0.02,
        discover: bool = False,
        on_step: Callable[[int], None] | None = None,
        on_numbers: Callable[[int], None] | None = None,
    ) -> None:
        self.observer = Observer()
        self.records = Records()
        self.cadence = Cadence(every, budget)
        self.clips = Clips()
        self.scaling = Scaling()
        self.data = Data()
        self.readback = Readback()
        self.discover = discover
        self.discovery = Discovery(self.admit)
        self.optimizers = Optimizers(self.step_begins, self.step_ended, self._matters)
        self._given = [self.optimizers.know(optimizer) for optimizer in optimizers]
        self.steps = 0
        self.backwards = 0
        self.forwards = 0
        """Outermost calls of models at looked-at steps."""
        self.looked_at = 0
        self.looked_at_backwards = 0
        self.by_hand = 0
        """Updates made without an optimizer."""
        self.loaded = False
        self.compiled: list[str] = []
        self.blind: list[str] = []
        self.scale_unknown = False
        self.held: dict[str, bool] = {}
        """By path, whether an optimizer held the parameter when it was last seen."""
        self.fed: set[str] = set()
        """Paths of parameters that got a gradient."""
        self.own = 0.0
        """Seconds spent on watching."""
        self.failure: BaseException | None = None
        """What made gradlint stop watching, if anything did."""
        self._inside = False
        self._on_step = on_step
        self._on_numbers = on_numbers
        self._labels: dict[int, str] = {}
        self._hooks = ExitStack()
        self._gates = ExitStack()
        self._interval: Interval | None = None
        self.looking = False
        self._started = 0.0
        self.ended = 0.0
        self._backward_depth = 0
        self._paused = 0
        self._late: list[tuple[str, int, Tensor, Site]] = []
        self._frozen: dict[str, Tensor] = {}
        self._hand: ByHand | None = None
        for label, model in (models or {}).items():
            self.admit(model, label)

    # -- being in place ---------------------------------------------------------------

    def start(self) -> None:
        """Place hooks; training goes on bit for bit as it would."""
        if self.looking:
            return
        self.looking = True
        self._started = time.perf_counter()
        switchboard.listen(self)
        self.optimizers.start()
        if self.discover:
            self.discovery.start()
        if self._interval is None:
            self._open()

    def stop(self) -> None:
        """Remove every hook and take the last numbers."""
        if not self.looking:
            return
        if self._hand is not None:
            self._close_by_hand()
        self._disarm()
        self._guarded_flush()

    def _disarm(self) -> None:
        self.looking = False
        self.ended = time.perf_counter()
        switchboard.leave(self)
        self.optimizers.stop()
        self.discovery.stop()
        self._unhook()
        self._gates.close()
        interval, self._interval = self._interval, None
        if interval is not None and interval.light is not None:
            interval.light.close()
        self.observer.unread()
        self.observer.close_step()
        self.observer.outputs = None
        self.observer.weights.forget()
        self._frozen.clear()
        self._hand = None

    @guarded
    def _guarded_flush(self) -> None:
        self._flush(wait=True)

    @property
    def certain(self) -> bool:
        """Whether something happened that needs no more steps to be judged."""
        return any(e.name in ("non-finite", "detached-loss") for e in self.observer.events)

    @property
    def seconds(self) -> float:
        """Seconds the loop was watched."""
        if not self._started:
            return 0.0
        return (time.perf_counter() if self.looking else self.ended) - self._started

    def fail(self, error: BaseException) -> None:
        """Stop watching because of a mistake of our own: the run must go on."""
        if self.failure is None:
            self.failure = error
        self._disarm()

    # -- models -----------------------------------------------------------------------

    @guarded
    def admit(self, model: nn.Module, label: str) -> None:
        """Watch `model`, too."""
        inner = unwrapped(model)
        if id(inner) in self._labels and self.observer.roots.get(self._labels[id(inner)]) is inner:
            return
        known = set(self.observer.roots)
        name, count = label, 1
        while name in known:
            count += 1
            name = f"{label}{count}"
        self._labels[id(inner)] = name
        if is_compiled(model):
            self.compiled.append(name)
        self.loaded = self.loaded or is_trained_before(inner)
        self.observer.admit(inner, label=name)
        self.discovery.know(model)
        for event in unregistered(inner):
            path = joined(name, event.module or "")
            self.observer.events.append(Event(event.name, 0, path, event.detail))
        interval = self._interval
        if interval is not None and interval.look is Look.FULL and not is_compiled(model):
            self._hooks.enter_context(HookManager(inner, self, name))

    def _parameters(self) -> list[nn.Parameter]:
        return list(self.observer.parameters.values())

    def _matters(self, optimizer: torch.optim.Optimizer) -> bool:
        if self._given:
            return any(known.optimizer() is optimizer for known in self._given)
        if self.discover:
            return True
        own = {id(p) for p in self._parameters()}
        return any(id(p) in own for group in optimizer.param_groups for p in group["params"])

    def holders(self) -> list[Known]:
        """Optimizers that hold a parameter of a watched model."""
        own = {id(p) for p in self._parameters()}
        return [k for k in self.optimizers if any(id(p) in own for p in k.parameters())]

    # -- intervals --------------------------------------------------------------------

    def _open(self) -> None:
        """Begin what will be the next step."""
        round_ = self.steps // max(1, len(self.optimizers.stepped)) + 1
        look = self.cadence.next(round_)
        now = time.perf_counter()
        interval = Interval(look, self.steps + 1, now, self.own)
        self._interval = interval
        self._paused = 0
        if look is Look.FULL:
            for label, model in list(self.observer.roots.items()):
                self._refresh(label, model)
            # One optimizer's loss may come through what ran before another one's step.
            self.observer.open_step(interval.number, keep_calls=len(self.optimizers.stepped) > 1)
            self._hooks = ExitStack()
            for label, model in list(self.observer.roots.items()):
                if label not in self.compiled:
                    self._hooks.enter_context(HookManager(model, self, label))
            self._hooks.enter_context(self.observer.calls.noting_packed())
            interval.hooked = True
        elif look is Look.LIGHT:
            self._stage(interval)

    def _stage(self, interval: Interval) -> None:
        leaves = [
            (path, self.observer.modules[path])
            for path, facts in self.observer.facts_of_modules.items()
            if facts.leaf and facts.calls and path in self.observer.modules
            and path.partition(".")[0] not in self.compiled
        ]  # fmt: skip
        parameters = [(path, p) for path, p in self.observer.parameters.items()]
        interval.light = Light(leaves, parameters, self.observer.depths)

    def _refresh(self, label: str, model: nn.Module) -> None:
        """Take up parameters that were added, replaced or unfrozen since."""
        known = self.observer.parameters
        for inner, parameter in model.named_parameters():
            path = joined(label, inner)
            facts = self.observer.facts_of_parameters.get(path)
            if known.get(path) is not parameter or (
                facts is not None and facts.requires_grad != parameter.requires_grad
            ):
                self.observer.admit(model, label=label)
                return

    def _unhook(self) -> None:
        self._hooks.close()
        if self._interval is not None:
            self._interval.hooked = False
            self._interval.recording = False

    # -- what the hooks tell: modules -------------------------------------------------

    @guarded
    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """A module starts; see `HookManager`."""
        interval = self._interval
        if interval is None:
            return
        calls = self.observer.calls
        if not calls.open:
            if self._paused or not torch.is_grad_enabled():
                self._paused += 1
                return
            if self._hand is not None and interval.backwards:
                self._close_by_hand()
                interval = self._interval or interval
            interval.forwards += 1
            self.forwards += 1
            if interval.forwards > MAX_FORWARDS or interval.backwards > MAX_BACKWARDS:
                self._unhook()
                return
            self.data.begin(inputs)
        self.observer.enter(path, module, inputs)

    @guarded
    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module ended; see `HookManager`."""
        if self._interval is None:
            return
        if self._paused and not self.observer.calls.open:
            self._paused -= 1
            return
        if self.observer.calls.open:
            self.observer.leave(path, module, inputs, output)
            if not self.observer.calls.open:
                self.observer.outputs = output

    # -- what torch tells: backward ---------------------------------------------------

    @guarded
    def backward_begins(self, tensors: Sequence[Tensor], inputs: Any, create_graph: bool) -> None:
        """`torch.autograd.backward` was called."""
        interval = self._interval
        self._backward_depth += 1
        if interval is None or self._backward_depth > 1 or graph_task() != -1:
            return
        if self._hand is not None and interval.backwards:
            self._close_by_hand()
            interval = self._interval
            if interval is None:
                return
        interval.backwards += 1
        self.backwards += 1
        if self.backwards == 10:  # one that never steps is known by what it holds
            self.optimizers.find(self._parameters())
        self.looked_at_backwards += interval.hooked
        loss = tensors[0] if len(tensors) == 1 and tensors[0].numel() == 1 else None
        numbers = interval.look is not Look.OFF
        for known in self.optimizers:
            known.carry.backward_begins(numbers=numbers)
        if loss is not None and not (self.optimizers.inside and interval.backwards > 1):
            self._note_loss(interval, loss)
        if interval.light is not None:
            interval.light.in_backward = True
        if interval.look is Look.FULL and interval.hooked and loss is not None:
            self._capture(interval, loss, gains=not create_graph)
        elif loss is not None and loss.grad_fn is None:
            self._note_detached()

    def _note_detached(self) -> None:
        if not any(e.name == "detached-loss" for e in self.observer.events):
            self.observer.events.append(Event("detached-loss", self.steps))

    def _note_loss(self, interval: Interval, loss: Tensor) -> None:
        value = loss.detach()
        if self.scaling.scale is not None and loss.grad_fn is not None:
            value = value / self.scaling.scale.to(value.device, non_blocking=True)
        if value.device.type != "cpu" or value.is_complex():
            interval.losses.append(value.reshape(()))
            return
        number = float(value.reshape(1).tolist()[0])
        interval.add_loss(number)
        if not math.isfinite(number) and self.scaling.scale is None:
            self._note_non_finite(loss, number)

    def _note_non_finite(self, loss: Tensor, value: float) -> None:
        if any(e.name == "non-finite" for e in self.observer.events):
            return
        self.observer.events.append(in_loss(self.observer, loss, self.steps + 1, value))

    def _capture(self, interval: Interval, loss: Tensor, *, gains: bool) -> None:
        observer = self.observer
        if loss.grad_fn is None:
            self._note_detached()
            return
        if not interval.captured:
            interval.captured = True
            observer.forward_done(loss, gains=gains, note_loss=False)
            self.data.note(observer)
            if observer.recorder is not None:
                observer.recorder.__enter__()
                interval.recording = True
        observer.in_backward = True

    @guarded
    def backward_ended(self, error: BaseException | None) -> None:
        """`torch.autograd.backward` returned or raised."""
        self._backward_depth = max(0, self._backward_depth - 1)
        interval = self._interval
        if interval is None or self._backward_depth or graph_task() != -1:
            return
        self.observer.in_backward = False
        if interval.recording and self.observer.recorder is not None:
            self.observer.recorder.__exit__(None, None, None)
            interval.recording = False
        self.observer.release()
        if interval.light is not None:
            interval.light.in_backward = False
        for known in self.optimizers:
            known.carry.backward_ended()
        if error is not None:
            detail = {"phase": "backward", "type": type(error).__name__, "message": str(error)}
            self.observer.events.append(Event("exception", self.steps + 1, None, detail))
            return
        if interval.backwards > MAX_BACKWARDS and interval.hooked:
            self._unhook()
        if interval.look is not Look.OFF and interval.backwards <= MAX_BACKWARDS:
            self._note_norms(interval)
        if interval.backwards == 1 and not self.optimizers.inside:
            self._maybe_by_hand(interval)

    def _note_norms(self, interval: Interval) -> None:
        parameters = [p for p in self._parameters() if p.grad is not None]
        interval.norms = norms_by_id(parameters)
        if len(self.fed) < len(self.observer.parameters):
            self.fed |= {n for n, p in self.observer.parameters.items() if p.grad is not None}

    # -- what torch tells: clipping and scaling ---------------------------------------

    @guarded
    def clipped(
        self, kind: str, parameters: Any, limit: Any, norm: Tensor | None, norm_type: float
    ) -> None:
        """Gradients are about to be clipped."""
        first = parameters if isinstance(parameters, Tensor) else next(iter(parameters), None)
        own = {id(p) for p in self._parameters()}
        if first is None or id(first) not in own:
            return
        scaled = self.scaling.seen and not self.scaling.unscaled()
        if scaled and norm is not None and self.scaling.scale is not None:
            norm = norm.detach() / self.scaling.scale.to(norm.device)
        self.clips.add(kind, parameters, limit, norm, scaled=scaled)

    @guarded
    def scaled(self, scaler: Any) -> None:
        """A GradScaler scaled a loss."""
        self.scaling.scaled(scaler)

    @guarded
    def scaler_steps(self, scaler: Any, optimizer: torch.optim.Optimizer) -> None:
        """A GradScaler was asked for a step."""
        if self._matters(optimizer):
            self.scaling.asked()

    @guarded
    def scaler_updates(self, scaler: Any) -> None:
        """A GradScaler updated its scale: a step it was asked for and did not make is skipped."""
        if self.scaling.updated():
            self.clips.of_step.clear()
            self._discard()

    def _discard(self) -> None:
        """Forget the open step: it was not made."""
        self._unhook()
        interval = self._interval
        if interval is not None and interval.light is not None:
            interval.light.close()
        self.observer.unread()
        self.observer.close_step()
        self._open()

    @guarded
    def loaded_weights(self, module: nn.Module) -> None:
        """Somebody loaded a state dict into `module`."""
        if self.steps == 0:
            self.loaded = True

    # -- what torch tells: optimizer steps --------------------------------------------

    @guarded
    def step_begins(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step begins."""
        interval = self._interval
        known = self.optimizers.know(optimizer)
        if interval is None:
            return
        self._hand = None
        self._gates.close()
        interval.initial = known.steps == 0 and not known.had_state
        # Several optimizers may step after one backward; a closure runs its own inside.
        known.shares = not interval.backwards and not known.closure and known.has_gradients()
        if interval.backwards or known.shares:
            self._measure(interval, known)
        if interval.look is Look.FULL:
            self.observer.before_update()
        elif interval.light is not None:
            interval.light.before_update()

    def _first_step(self, known: Known) -> None:
        optimizer = known.optimizer()
        watched = {id(p) for p in self._parameters()}
        if any(id(p) not in watched for p in known.parameters()):
            for label, model in list(self.observer.roots.items()):
                self._refresh(label, model)
        if optimizer is not None:
            known.facts = facts_of_optimizer(optimizer, self.observer.parameters)
            held = {id(p) for p in known.parameters()}
            for path, parameter in self.observer.parameters.items():
                self.held[path] = self.held.get(path, False) or id(parameter) in held
        if not self.discover:
            return
        own = {id(p) for p in self._parameters()}
        if all(id(p) in own for p in known.parameters()):
            self.discovery.stop()
        elif not self.discovery.running:
            self.discovery.start()

    def _measure(self, interval: Interval, known: Known | None) -> None:
        """Measure the gradients that a step is about to apply."""
        if interval.look is Look.OFF or interval.measured:
            return
        interval.measured = True
        others = {
            id(p) for k in self.optimizers if k is not known for p in k.parameters()
        } - {id(p) for p in (known.parameters() if known is not None else ())}  # fmt: skip
        scale = self.scaling.scale
        if known is not None:
            optimizer = known.optimizer()
            fused = self.scaling.of_step(optimizer) if optimizer is not None else None
            self.scale_unknown = self.scale_unknown or fused is not None
        held = [norm for key, (_, norm) in interval.norms.items() if key not in others]
        put = self.observer.put
        total = total_norm(held)
        if total is not None:
            left = total if scale is None else total / scale.to(total.device)
            put("backward_gradient_norm", left)
        if known is not None:
            carried = known.carry.carried()
            if carried is not None:
                if scale is not None:
                    carried = carried / scale.to(carried.device)
                put("carried_gradient_norm", carried)
        if interval.look is Look.FULL:
            self.observer.weights.gradients(initial=interval.initial, symmetry=True, without=others)
        elif interval.light is not None:
            norms = interval.light.gradients(interval.norms, others)
            now = total_norm(norms)
            put("total_gradient_norm", torch.zeros(()) if now is None else now)

    @guarded
    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step ended: close the interval, open the next."""
        interval = self._interval
        known = self.optimizers.know(optimizer)
        if interval is None:
            return
        if interval.backwards and not interval.measured:
            known.closure = True
            self._measure(interval, known)
        if known.steps == 0:
            self._first_step(known)
        known.steps += 1
        self.scaling.stepped()
        known.carry.stepped(known.parameters())
        rate = known.learning_rate()
        if rate is not None:
            self.records.point("learning_rate", interval.number, rate)
        self._close(interval, known)

    # -- closing an interval ----------------------------------------------------------

    def _close(self, interval: Interval, known: Known | None, *, update: bool = True) -> None:
        """Take what an interval gave; the next one begins."""
        self.steps += 1
        number = interval.number
        site = self._stream(known)
        self._take_loss(interval, number, site)
        clip = self.clips.close_step()
        if clip is not None:
            norm, limit = clip
            self.records.point("clipping_limit", number, limit)
            if norm is not None:
                self._point("norm_before_clipping", number, norm, MODEL)
        if interval.look is Look.FULL:
            self._close_full(interval, update=update)
        elif interval.light is not None:
            self._close_light(interval)
        self._flush(wait=False)
        now = time.perf_counter()
        own = self.own + (now - self._entered) - interval.own_before
        first = self.steps <= FIRST_LIGHT * max(1, len(self.optimizers.stepped))
        self.cadence.spent(interval.look, own, now - interval.started, first=first)
        self._open()
        if self._on_step is not None:
            self._on_step(number)

    def _stream(self, known: Known | None) -> Site:
        """Return the site of the loss that belongs to an optimizer's steps."""
        if known is None:
            return MODEL
        if known.site is None:
            own = {id(p): path for path, p in self.observer.parameters.items()}
            paths = [own[id(p)] for p in known.parameters() if id(p) in own]
            label = paths[0].partition(".")[0] if paths else known.kind
            taken = {k.site.path for k in self.optimizers if k.site is not None}
            known.site = Site(label if label not in taken else f"{label}:{known.kind}", "loss")
        return known.site

    def _take_loss(self, interval: Interval, number: int, site: Site) -> None:
        if interval.loss is not None:
            self.records.point("loss", number, interval.loss, site)
        elif interval.losses:
            total = interval.losses[0]
            for loss in interval.losses[1:]:
                total = total + loss.to(total.device)
            self._point("loss", number, total, site)

    def _point(self, metric: str, number: int, value: Tensor, site: Site) -> None:
        """Keep a point of a series, now if the host can have it without waiting."""
        value = getattr(value, "_local_tensor", value).detach().reshape(())
        if value.device.type == "cpu":
            self.records.point(metric, number, value.reshape(1).tolist()[0], site)
        else:
            self._late.append((metric, number, value, site))

    def _flush(self, *, wait: bool) -> None:
        if self._late and (wait or len(self._late) >= 64):
            late, self._late = self._late, []

            def take(values: list[float]) -> None:
                for (metric, number, _, site), value in zip(late, values, strict=True):
                    self.records.point(metric, number, value, site)

            self.readback.submit([value for _, _, value, _ in late], take)
        self.readback.poll(wait=wait)

    def _close_full(self, interval: Interval, *, update: bool) -> None:
        observer = self.observer
        self.looked_at += 1
        if update:
            observer.after_update()
        self._watch_frozen()
        if interval.initial:
            observer.close_window()
        self._unhook()
        unread = observer.unread()
        observer.close_step()
        if interval.number == 1:
            self._note_sources()
        initial, number = interval.initial, interval.number

        def take(values: list[float]) -> None:
            self._deliver(unread, values, initial=initial)
            if self._on_numbers is not None:
                self._on_numbers(number)

        self.readback.submit(unread.tensors, take)

    def _deliver(self, unread: Unread, values: list[float], *, initial: bool) -> None:
        observer = self.observer
        before, flows = len(observer.observations), len(observer.flows)
        seen = observer.deliver(unread, values)
        if initial:
            observer.observations[before:] = doubled(observer.observations[before:])
            again = observer.flows[flows:]
            observer.flows[flows:] = [replace(flow, step=0) for flow in again] + again
        norm = seen.get(("total_gradient_norm", ""), 0.0)
        if self._spoiled(norm):
            observer.events.append(in_gains(observer, unread, norm))

    def _spoiled(self, norm: float) -> bool:
        """Whether a gradient norm is the first that is not finite, and no scaler's search."""
        known = any(e.name == "non-finite" for e in self.observer.events)
        return not math.isfinite(norm) and self.scaling.scale is None and not known

    def _close_light(self, interval: Interval) -> None:
        light = interval.light
        if light is None:
            return
        self.looked_at += 1
        numbers, layout = light.reduce(self.scaling.scale)
        light.close()
        unread = self.observer.unread()
        numbers += [value.reshape(1) for *_, value in unread.pending]
        layout.columns += [(name, site) for name, site, _, _ in unread.pending]
        number = interval.number

        def take(values: list[float]) -> None:
            self._take_row(number, layout, values)

        self.readback.submit(numbers, take)

    def _take_row(self, number: int, layout: Layout, values: list[float]) -> None:
        self.records.row(number, layout, values)
        at = layout.columns.index(("total_gradient_norm", MODEL)) if layout.columns else -1
        if at >= 0 and self._spoiled(values[at]):
            self.observer.events.append(in_row(number, layout, values))
        if self._on_numbers is not None:
            self._on_numbers(number)

    def _watch_frozen(self) -> None:
        """Measure whether parameters that need no gradient moved since they were last seen."""
        for path, parameter in self.observer.parameters.items():
            if parameter.requires_grad or parameter.is_meta or not parameter.is_floating_point():
                continue
            now = parameter.detach().reshape(-1)[:4096].to(torch.float64)
            before = self._frozen.get(path)
            if before is not None and before.shape == now.shape:
                size = torch.linalg.vector_norm(before)
                change = torch.linalg.vector_norm(now - before)
                ratio = change / torch.where(size > 0, size, torch.ones_like(size))
                self.observer.put("frozen_change", ratio, self.observer.weights.site(path))
            self._frozen[path] = now.clone()

    def _note_sources(self) -> None:
        with_sources(self.observer)

    # -- updates by hand --------------------------------------------------------------

    def _maybe_by_hand(self, interval: Interval) -> None:
        """After a backward that no optimizer waits for: the next forward tells of an update."""
        if self.optimizers.stepped or self._given:
            return
        if self.backwards == 1 and not self.discover:
            self.optimizers.find(self._parameters())
        if self.holders():
            return
        interval.initial = self.by_hand == 0 and self.steps == 0
        self._measure(interval, None)
        if interval.look is Look.FULL:
            self.observer.before_update()
        elif interval.light is not None:
            interval.light.before_update()
        self._hand = ByHand(self._parameters())
        self._watch_for_forward()

    def _close_by_hand(self) -> None:
        """Close the step if the parameters changed since its backward."""
        hand, self._hand = self._hand, None
        interval = self._interval
        if interval is None or hand is None:
            return
        if not hand.changed():
            self._hand = hand
            return
        self._gates.close()
        self.by_hand += 1
        if self.discover and self.by_hand > 2:
            self.discovery.stop()
        self._close(interval, None)

    def _watch_for_forward(self) -> None:
        """Have the next forward of any model tell of itself before it runs."""
        self._gates.close()
        for label, model in self.observer.roots.items():
            gate = _Gate(self, label)
            handle = model.register_forward_pre_hook(gate, with_kwargs=True)
            self._gates.callback(handle.remove)

    @guarded
    def forward_begins(self, label: str, model: nn.Module, inputs: Any) -> None:
        """A model runs, and an update by hand may have been made before."""
        interval = self._interval
        if interval is None or self._hand is None or not torch.is_grad_enabled():
            return
        if not interval.backwards:
            return
        self._close_by_hand()
        now = self._interval
        if now is not None and now is not interval and now.look is Look.FULL:
            self.enter(label, model, inputs)  # its own hook came too late for this call

    _entered = 0.0
    """When the outermost of our own functions was entered."""


def norms_by_id(parameters: Sequence[nn.Parameter]) -> dict[int, tuple[int, Tensor]]:
    """Return version and norm of the gradient of each of `parameters`, by ``id``."""
    grads = [p.grad for p in parameters if p.grad is not None]
    found = norms([local(g) for g in grads])
    versions = [gradient._version for gradient in grads]
    return {
        id(p): pair for p, pair in zip(parameters, zip(versions, found, strict=True), strict=True)
    }


def total_norm(norms: Sequence[Tensor]) -> Tensor | None:
    """Return the norm of all, as of one vector; None without any."""
    if not norms:
        return None
    home = norms[0].device
    stacked = torch.stack([n.reshape(()).to(home, torch.float64) for n in norms])
    total: Tensor = torch.linalg.vector_norm(stacked)
    return total
