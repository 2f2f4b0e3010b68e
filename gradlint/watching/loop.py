"""Loop: what happens in a training loop that we do not own, seen from the outside."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.hooks import switchboard
from gradlint.hooks.manager import graph_task
from gradlint.hooks.ranks import here
from gradlint.trace import Event, LossFacts
from gradlint.watching.by_hand import ByHand
from gradlint.watching.cadence import FIRST_LIGHT, Cadence, Look
from gradlint.watching.carry import cleared
from gradlint.watching.cast import Cast
from gradlint.watching.clips import Clips
from gradlint.watching.compiled import Compiled
from gradlint.watching.data import Data
from gradlint.watching.discarded import Discarded
from gradlint.watching.empty_steps import EmptySteps
from gradlint.watching.facts_of import schedulers_of
from gradlint.watching.first_non_finite import in_loss
from gradlint.watching.full_look import FullLook, refreshed
from gradlint.watching.gradients import Gradients
from gradlint.watching.guard import Stop, guarded
from gradlint.watching.interval import NOTHING, Interval
from gradlint.watching.light_look import LightLook
from gradlint.watching.optimizers import Known, Optimizers
from gradlint.watching.originals import Originals
from gradlint.watching.plan import Plan
from gradlint.watching.ranks import Ranks
from gradlint.watching.reach import Reach
from gradlint.watching.records import Records
from gradlint.watching.resting import Resting
from gradlint.watching.roots import (
    Discovery,
)
from gradlint.watching.scaling import Scaling
from gradlint.watching.series import Series
from gradlint.watching.strangers import Strangers
from gradlint.watching.unloaded import Unloaded

APART = 17
"""Steps between two thorough light looks, where all are looked at: activations and the norms of
weights move slowly, and what changes a gradient between backward and step does so all the time.
A prime, so that it is the turn of every one of several optimizers."""

MAX_BACKWARDS = 8
"""Backwards looked at in one step; a loop that never steps must not pay for ever. Of a step that
gathers more of them the rest goes by, and the gradient it ends with is measured."""

MAX_PHASES = 8
"""Phases of a script whose first step is looked at in full: a loop may build an optimizer for
each of its steps."""


class Loop(switchboard.Ear):
    """Hooks in place and numbers so far; `Watcher` is what users see.

    Args:
        models: Models by label; more may be discovered.
        optimizers: The optimizers to follow; none follows every one that holds a parameter
            of a model, and with `discover` every one.
        every: See `Cadence`.
        budget: See `Cadence`.
        discover: Whether to look for models.
        on_step: Called after each step with its number.
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
        self.observer.failed = self.fail
        self.records = Records()
        self.plan: Plan | None = None
        """What the latest light step sampled."""
        self.series = Series(self.records)
        self.cadence = Cadence(every, budget)
        self.clips = Clips()
        self.scaling = Scaling()
        self.data = Data()
        self.reach = Reach()
        self.discarded = Discarded(self)
        self.patience: int | None = None
        """Backwards after which a loop that never steps is stopped; None never stops it."""
        self.discover = discover
        self.discovery = Discovery(self.admit)
        self.cast = Cast(self)
        self.optimizers = Optimizers(
            self.step_begins,
            self.step_ended,
            self._matters,
            self.stranger_steps,
            self.cast.goes_on,
        )
        self.strangers = Strangers()
        self.originals = Originals()
        self.empty_steps = EmptySteps()
        self.given = [self.optimizers.know(optimizer) for optimizer in optimizers]
        self.steps = 0
        self.backwards = 0
        self.forwards = 0
        """Outermost calls of models at fully looked-at steps, and their backwards:"""
        self.looked_at_backwards = 0
        self.looked_at = 0
        self.loaded = False
        """Whether weights were loaded before the first step."""
        self.unloaded = Unloaded()
        self.compiled = Compiled()
        self.scale_unknown = False
        self.held: dict[str, bool] = {}
        """By path, whether an optimizer held the parameter when it was last seen."""
        self.replaced: dict[str, int] = {}
        """By path, since which step another tensor is seen in the place of one that was held."""
        self.gradients = Gradients(self)
        self.schedulers: dict[str, None] = {}
        """Classes of the schedulers seen, in order; they may be gone when the loop ends."""
        self.frozen: dict[str, Tensor] = {}
        """Samples of parameters that need no gradient, as they were last seen."""
        self.own = 0.0
        """Seconds spent on watching."""
        self.raised: Event | None = None
        """What a backward, or a loss at the end, raised with no step made since: the loop may
        have ended of it."""
        self.failure: BaseException | None = None
        """What made gradlint stop watching, if anything did."""
        self.inside = False
        self.clock = time.thread_time
        """What our own time is measured by; see `guarded`."""
        self.entered = 0.0
        """When the outermost of our own functions was entered."""
        self.looking = False
        self.ended = 0.0
        self.process = os.getpid()
        """Where the loop runs; a forked child runs another."""
        self.thread: int | None = None
        """Where the loop runs; another thread may run another loop."""
        self._thorough_at = 0
        self._phases = 0
        """How often the loop was looked at again, because another phase may have begun."""
        self._started = 0.0
        self._on_step = on_step
        self._on_numbers = on_numbers
        self._labels: dict[int, str] = {}
        self._moved: set[str] = set()
        """Paths of parameters that an optimizer was about to update."""
        self._used: set[str] = set()
        self.interval: Interval | None = None
        self.backward_depth = 0
        """Backwards that run, one within another."""
        self._aside = False
        """Whether the running backward is another network's."""
        self._resting: Resting | None = None
        """The short way, while it is open."""
        self._rest: Resting | None = None
        """The one taken before, or to be taken next."""
        self.by_hand = ByHand(self)
        self.ranks = Ranks()
        for label, model in (models or {}).items():
            self.admit(model, label)

    # -- being in place ---------------------------------------------------------------

    def start(self) -> None:
        """Place hooks; training goes on bit for bit as it would."""
        if self.looking:
            return
        self.looking = True
        self.ranks.begin()
        self._started = time.perf_counter()
        switchboard.listen(self)
        self.optimizers.start()
        if self.discover:
            self.discovery.start()
        try:
            self._open()
        except Exception as error:  # as `guarded`, but whoever starts need not be who trains
            self.fail(error)

    def stop(self) -> None:
        """Remove every hook and take the last numbers."""
        if self.looking:
            self.thread = None  # whoever ends the watching need not be who trained
            self._last_update()
            self._disarm()
            self._flush()

    @guarded
    def _last_update(self) -> None:
        self.by_hand.look()
        self.data.end()

    @guarded
    def _flush(self) -> None:
        self.series.flush(wait=True)

    def _disarm(self) -> None:
        self.looking = False
        self.ended = time.perf_counter()
        switchboard.leave(self)
        self.optimizers.stop()
        self.discovery.stop()
        self._resting = self._rest = None
        self.plan = None  # it holds memory of weights
        interval, self.interval = self.interval, None
        if interval is not None and interval.closeup is not None:
            interval.closeup.discard()
        self.by_hand.rest()
        self.frozen.clear()
        self.data.forget()

    def ended_in_loss(self, error: Exception, loss: LossFacts) -> None:
        """Note the exception of a loss that ended the loop, and what entered that loss."""
        detail = {"phase": "loss", "type": type(error).__name__, "message": str(error)}
        self.raised = Event("exception", self.steps + 1, None, detail)
        self.data.note_raised(loss)

    def fail(self, error: BaseException) -> None:
        """Stop watching because of a mistake of our own: the run must go on."""
        if self.failure is None:
            self.failure = error
        self._disarm()

    @property
    def seconds(self) -> float:
        """Seconds the loop was watched."""
        if not self._started:
            return 0.0
        return (time.perf_counter() if self.looking else self.ended) - self._started

    @property
    def certain(self) -> bool:
        """Whether something happened that needs no more steps to be judged."""
        return any(e.name in ("non-finite", "detached-loss") for e in self.observer.events)

    @property
    def accuses(self) -> bool:
        """Whether a number that is not finite now would be the first, and no scaler's search."""
        known = any(e.name == "non-finite" for e in self.observer.events)
        return not known and self.scaling.scale is None

    def numbers_arrived(self, number: int) -> None:
        """Tell that the numbers of a looked-at step are there."""
        if self._on_numbers is not None:
            self._on_numbers(number)

    # -- models -----------------------------------------------------------------------

    @guarded
    def admit(self, model: nn.Module, label: str) -> None:
        """Watch `model`, too."""
        name = self.cast.admit(model, label)
        if name is None:
            return
        inner = self.observer.roots[name]
        interval = self.interval
        if interval is None:
            return
        if interval.look is not Look.FULL and not interval.backwards:
            self._look_in_full(interval)  # a model's first step shows how it begins
        elif interval.closeup is not None:
            interval.closeup.admit(inner, name)

    def _look_in_full(self, interval: Interval) -> None:
        """Look at a step in full that began as one to look at less closely."""
        if interval.closeup is not None:
            interval.closeup.discard()
        interval.look = Look.FULL
        self.optimizers.rests = False
        self._resting = None
        self._look_at(interval)

    def _look_again(self) -> None:
        """Look at the open step in full: another phase of the script may begin with it."""
        if self._phases >= MAX_PHASES or not self.steps:
            return
        self._phases += 1
        self.data.ask_again()
        interval = self.interval
        if interval is not None and interval.look is not Look.FULL and not interval.backwards:
            self._look_in_full(interval)

    def refresh(self, label: str, model: nn.Module, *, since: int | None = None) -> None:
        """Take up what a model has gained; what comes from step `since` on is of that."""
        refreshed(self, label, model, self.steps + 2 if since is None else since)

    def _parameters(self) -> list[nn.Parameter]:
        return list(self.observer.parameters.values())

    def _matters(self, optimizer: torch.optim.Optimizer) -> bool:
        if self.given:
            return any(known.optimizer() is optimizer for known in self.given)
        if self.discover or self.optimizers.knows(optimizer):
            return True
        own = {id(p) for p in self._parameters()}
        return any(id(p) in own for group in optimizer.param_groups for p in group["params"])

    def holders(self) -> list[Known]:
        """Optimizers that hold a parameter of a watched model."""
        own = {id(p) for p in self._parameters()}
        return [k for k in self.optimizers if any(id(p) in own for p in k.parameters())]

    def known_parameters(self) -> set[int]:
        """Return by identity what the models and the optimizers hold."""
        own = {id(p) for p in self.observer.parameters.values()}
        return own.union(id(p) for known in self.optimizers for p in known.parameters())

    # -- intervals --------------------------------------------------------------------

    def _open(self) -> None:
        """Begin what will be the next step."""
        stepped = max(1, self.optimizers.count_stepped)
        look = self.cadence.next(self.steps // stepped + 1)
        number = self.steps + 1
        interval = Interval(look, number, number, time.perf_counter(), self.own)
        if look is Look.LIGHT:
            interval.thorough = self._thorough(number)
        self.interval = interval
        self.clock = time.thread_time if self.steps < FIRST_LIGHT else time.perf_counter
        rests = look is Look.OFF and not self.by_hand.waits and self.ranks.world < 2
        self.optimizers.rests = rests
        self._resting = None
        if rests and stepped == 1 and self.steps >= FIRST_LIGHT:
            interval.last = number + self.cadence.resting(number) - 1
            if interval.last > number:
                self._resting = self._short_way(interval)
        self._look_at(interval)

    def _short_way(self, interval: Interval) -> Resting | None:
        """Return the short way through the steps of `interval`, where nothing asks for more."""
        only = self.optimizers.only()
        if only is None or self.scaling.seen or self.reach.apart or self._on_step is not None:
            return None
        if ("loss", self.cast.stream(only)) not in self.records.series:
            return None
        if self._rest is None or self._rest.known is not only:
            self._rest = Resting(self, only)
        return self._rest.over(interval)

    def _look_at(self, interval: Interval) -> None:
        if interval.look is Look.FULL:
            # One optimizer's loss may come through what ran before another one's step.
            several = self.optimizers.count_stepped > 1
            interval.closeup = FullLook(self, interval.number, keep_calls=several)
        elif interval.look is Look.LIGHT:
            interval.closeup = LightLook(self, interval.number, thorough=interval.thorough)

    def _thorough(self, number: int) -> bool:
        """Whether a light look takes activations, and passes over all weights and gradients."""
        early = number <= FIRST_LIGHT * max(1, self.optimizers.count_stepped)
        alone = self.ranks.world < 2 and not self.scaling.seen
        if alone and not early and number < self._thorough_at + APART:
            return False
        self._thorough_at = number
        return True

    def step_made(self, interval: Interval, known: Known | None) -> None:
        """Take what an interval gave; the next one begins."""
        self.steps += 1
        self.raised = None
        looked = interval.closeup is not None or self.steps <= FIRST_LIGHT
        rate = known.learning_rate() if known is not None else None
        self.series.close(interval.number, self.cast.stream(known), self.clips, rate, looked=looked)
        if interval.closeup is not None:
            self.looked_at += 1
            self.gradients.updated(interval)
            interval.closeup.close(initial=interval.initial)
        if self.interval is None:  # a mistake of ours on the way
            return
        now = time.perf_counter()
        own = self.own + (self.clock() - self.entered) - interval.own_before
        if self.steps == 2:
            self.schedulers |= schedulers_of(self.optimizers.stepped)
        first = self.steps <= FIRST_LIGHT * max(1, self.optimizers.count_stepped)
        steps = interval.number - interval.first + 1 if interval.look is Look.OFF else 1
        self.cadence.spent(interval.look, own, now - interval.started, steps=steps, first=first)
        self._open()
        if self._on_step is not None:
            self._on_step(interval.number)

    def _pass(self, interval: Interval, known: Known) -> None:
        """Take what a step gave that nobody looked at; the next one is like it."""
        number = interval.number
        self.steps = number
        self.raised = None
        rate = known.learning_rate()
        self.series.close(number, self.cast.stream(known), self.clips, rate, looked=False)
        interval.number = number + 1
        interval.backwards = 0
        interval.initial = False
        known.carry.forget()
        if self._on_step is not None:
            self._on_step(number)

    def _discard(self) -> None:
        """Forget the open step: it was not made."""
        self.discarded.forget()
        self.series.forget(self.clips)
        interval = self.interval
        if interval is not None and interval.closeup is not None:
            interval.closeup.discard()
        self._open()

    def _try_again(self, interval: Interval) -> None:
        """Forget a backward that raised, and the forward before it."""
        self.discarded.forget()
        interval.backwards -= 1
        self.series.take_back()
        if interval.closeup is not None and not interval.rests:
            interval.closeup.backward_ended()
            interval.closeup.discard()
            interval.closeup = None
            self._look_at(interval)

    def _drop(self) -> None:
        """Forget what was seen before a step that raised; what runs since was not seen apart."""
        self.discarded.forget()
        interval = self.interval
        if interval is None:
            return
        self.series.forget(self.clips)
        interval.backwards = 0
        interval.measured = False
        if interval.closeup is not None:
            interval.closeup.discard()
            interval.closeup = None

    def begin_anew(self) -> None:
        """Forget what was seen before the first backward that leads to a watched model."""
        self.discarded.forget()
        interval = self.interval
        self.backwards = 0
        self.series.drop()
        self.data = Data()
        if interval is not None:
            interval.backwards = 0
            interval.backward = NOTHING
            if isinstance(interval.closeup, FullLook):
                interval.closeup.begin_anew()

    # -- what torch tells: backward ---------------------------------------------------

    def backward_begins(self, tensors: Sequence[Tensor], inputs: Any, create_graph: bool) -> None:
        """`torch.autograd.backward` was called."""
        try:
            if self._resting is not None and self._resting.backward_begins(tensors):
                return
        except Exception as error:  # as `guarded`
            self.fail(error)
        self._backward_begins(tensors, inputs, create_graph)

    @guarded
    def _backward_begins(self, tensors: Sequence[Tensor], inputs: Any, create_graph: bool) -> None:
        self.backward_depth += 1
        if self.interval is None or self.backward_depth > 1 or graph_task() != -1:
            return
        if self.interval.backwards:
            self.by_hand.look()
        if self.optimizers.raised():
            self._drop()
        interval = self.interval
        self._aside = not self.reach.concerns(self, interval, tensors, inputs)
        if self._aside:
            interval.aside = True
            return
        again = interval.backwards > 0 and bool(self.gradients.fed) and not self.optimizers.inside
        gone = again and cleared(self.observer.parameters.values())
        if gone:
            self.series.drop()  # of gradients looked at, not trained on
        plain = interval.closeup is not None and inputs is None and not create_graph
        if not plain or self.optimizers.inside or self._apart():
            self.discarded.forget()
        else:
            self.discarded.backward_begins(tensors, first=not interval.backwards, cleared=gone)
        interval.backwards += 1
        self.backwards += 1
        self.ranks.open(self)
        self.series.mark()
        if self.patience is not None and not self.steps and self.backwards > self.patience:
            raise Stop("until")
        if interval.rests:
            interval.backward = NOTHING  # what follows adds to it unseen
        loss = tensors[0] if len(tensors) == 1 and tensors[0].numel() == 1 else None
        if loss is not None and not (self.optimizers.inside and interval.backwards > 1):
            self._note_loss(loss)
        closeup = None if interval.rests else interval.closeup
        if closeup is None and self.optimizers.count_stepped < 2:
            return
        for carry in self.gradients.carries():
            carry.backward_begins(numbers=closeup is not None)
        if closeup is not None:
            closeup.backward_begins(loss, create_graph=create_graph)

    def _apart(self) -> bool:
        """Whether a model's gradients need not be where it has them, or not for one optimizer."""
        several = self.optimizers.count_stepped > 1
        return several or self.observer.is_split or self.ranks.world > 1

    def _note_loss(self, loss: Tensor) -> None:
        if loss.grad_fn is None:
            if not self.certain:
                self.observer.events.append(Event("detached-loss", self.steps))
            self.series.loss(loss)
            return
        scale = self.scaling.scale
        value = loss if scale is None else loss.detach() / scale.to(loss.device)
        known = self.series.loss(value)
        if known is not None and not math.isfinite(known) and self.accuses:
            event = in_loss(self.observer, loss, self.steps + 1, known)
            self.observer.events.append(event)

    def backward_ended(self, error: BaseException | None) -> None:
        """`torch.autograd.backward` returned or raised."""
        if error is not None or self._resting is None or not self._resting.backward_ended():
            self._backward_ended(error)

    @guarded
    def _backward_ended(self, error: BaseException | None) -> None:
        self.backward_depth = max(0, self.backward_depth - 1)
        interval = self.interval
        if interval is None or self.backward_depth or graph_task() != -1:
            return
        closeup = None if interval.rests else interval.closeup
        aside, self._aside = self._aside, False
        if error is not None:
            if not aside:
                self._try_again(interval)
            detail = {"phase": "backward", "type": type(error).__name__, "message": str(error)}
            self.raised = Event("exception", self.steps + 1, None, detail)
        if error is not None or aside:
            return
        self.discarded.backward_ended()
        if closeup is not None or self.optimizers.count_stepped > 1:
            for carry in self.gradients.carries():
                carry.backward_ended()
        if self.backwards == 1:  # `fully_shard` replaces the parameters of a model in place
            for label, model in list(self.observer.roots.items()):
                self.refresh(label, model)
        if closeup is not None:
            closeup.backward_ended()
            if interval.thorough:
                self.gradients.backward_ended(interval)
            if interval.backwards == 1 and self.optimizers.running is not None:
                self._closure_ended(interval, self.optimizers.running)
        if self.backwards in (1, 10):  # the second look finds what idles
            self.cast.find_optimizers()
        unstepped = self.optimizers.count_stepped == 0 and not self.reach.doubts
        if interval.backwards == 1 and unstepped:
            self.by_hand.backward_ended(interval)
        many = interval.backwards >= MAX_BACKWARDS and not self.optimizers.inside
        if closeup is not None and many:
            interval.rests = True
            closeup.rest()

    def _closure_ended(self, interval: Interval, known: Known) -> None:
        """Measure what an optimizer's step asked for itself, before it moves anything."""
        known.closure = True
        self.gradients.measure(interval, known)
        if interval.closeup is not None:
            interval.closeup.before_update()

    # -- what torch tells: clipping and scaling ---------------------------------------

    @guarded
    def clipped(
        self, kind: str, parameters: Any, limit: Any, norm: Tensor | None, norm_type: float
    ) -> None:
        """Gradients are about to be clipped."""
        first = parameters if isinstance(parameters, Tensor) else next(iter(parameters), None)
        if first is None or not any(first is p for p in self._parameters()):
            return
        scaled = self.scaling.seen and not self.scaling.unscaled()
        if norm is not None and self.interval is not None:
            self.ranks.note_clip(self, norm, self.interval.number, scaled=scaled)
        if scaled and norm is not None and self.scaling.scale is not None:
            norm = here(norm.detach()) / self.scaling.scale.to(norm.device)
        self.clips.add(kind, parameters, limit, norm, scaled=scaled)

    @guarded
    def scaled(self, scaler: Any) -> None:
        """A GradScaler scaled a loss."""
        self._resting = None
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
            self._discard()

    @guarded
    def loaded_weights(self, module: nn.Module, missing: list[str], unexpected: list[str]) -> None:
        """Somebody loaded a state dict into `module`: all it has a name for, or a part."""
        took = self.unloaded.loaded(module, missing, unexpected)
        if self.steps == 0 and took:
            self.loaded = True

    @guarded
    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """Somebody built an optimizer: a model that is not known may be about to train."""
        if self.discover:
            self.optimizers.know(optimizer)
            self.discovery.start()
        if self.steps and self._matters(optimizer):
            self._look_again()

    # -- what torch tells: optimizer steps --------------------------------------------

    @guarded
    def stranger_steps(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer steps that holds none of the models, which nothing else updates so far."""
        self.discarded.forget()  # what it applied came of the same backward
        if self.backwards and not (self.given or self.steps):
            self.strangers.steps(optimizer, self.backwards)

    @guarded
    def step_begins(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step begins."""
        interval = self.interval
        if interval is None:
            return
        known = self.optimizers.know(optimizer)
        self.by_hand.rest()
        if known.steps == 0:
            held = {id(p) for p in known.parameters()}
            known.paths = frozenset(n for n, p in self.observer.parameters.items() if id(p) in held)
            interval.initial = not known.had_state and self._moved.isdisjoint(known.paths)
            self._moved |= known.paths
            self.unloaded.look(self.observer.parameters)
        if not known.paths and self.discover:
            known.due = self.originals.steps(optimizer, known.steps)
        self.ranks.update_begins(self, known, interval.number)
        self.discarded.step_begins(optimizer, interval.number)
        if interval.closeup is None and known.steps:
            return
        self.empty_steps.begins(interval, known)
        # Several optimizers may step after one backward; a closure runs its own inside.
        known.shares = not interval.backwards and not known.closure and known.has_gradients()
        if interval.backwards or known.shares:
            self.gradients.measure(interval, known)
        self.gradients.before_update(interval, known)

    def step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer's step ended."""
        try:
            if self._resting is not None and self._resting.step_ended(optimizer):
                return
        except Exception as error:  # as `guarded`
            self.fail(error)
        self._step_ended(optimizer)

    @guarded
    def _step_ended(self, optimizer: torch.optim.Optimizer) -> None:
        """Close the interval, open the next."""
        interval = self.interval
        if interval is None:
            return
        known = self.optimizers.know(optimizer)
        unseen = False
        if known.steps == 0:
            self.cast.first_step(known)
            unseen = not known.shares and self.data.taken_at != interval.number
        self.optimizers.stepped_once(known, interval.number)
        self.scaling.stepped()
        if interval.number < interval.last and interval.closeup is None:
            self._pass(interval, known)
            if unseen:
                self._look_again()
            return
        self.step_made(interval, known)
        if unseen:
            self._look_again()
        opened = self.interval
        looked = opened is not None and opened.closeup is not None and opened.thorough
        if looked or self.optimizers.count_stepped > 1:
            known.carry.stepped(known.parameters())
        else:
            known.carry.forget()
