"""Ranks: a loop that runs on several processes, each of which watches itself.

gradlint takes part in no collective, ever: what ranks have to say to each other they leave in the
store of the process group once their loop is over, and the first one reads it.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from gradlint.hooks.ranks import (
    bits,
    can_be_hashed,
    here,
    pieces,
    rank_and_world,
    replicas_of,
    share_of,
    whole,
)
from gradlint.hooks.weak import joined
from gradlint.loop_facts import RankFacts
from gradlint.trace import Trace
from gradlint.watching.meeting import Meeting, place
from gradlint.watching.merging import merged, ranks_facts, without_shards
from gradlint.watching.parts import Check, Part, Points, decoded, group_key, part_of

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop
    from gradlint.watching.optimizers import Known

PATIENCE = 10.0
"""Seconds that the first rank waits for the others when its loop is over."""

SHORT = 3.0
"""Seconds it waits after a loop that ended in an exception: others may be gone, too."""

STOPS = 16
"""Steps between two at which ranks ask whether one of them wants to end."""

T = TypeVar("T")

_open: set[int] = set()
"""Slots of this process's exchanges that are not over."""


class Ranks:
    """This rank's place among the others, and what it keeps for the end."""

    def __init__(self) -> None:
        self.rank = 0
        self.world = 1
        self.notices: list[str] = []
        self.shares: dict[str, tuple[int, ...]] = {}
        """By path, the ranks among which a parameter is split."""
        self._copies: dict[str, tuple[int, ...]] = {}
        self._wrappers: dict[str, weakref.ref[nn.Module]] = {}
        self._meeting: Meeting | None = None
        self._slot = -1
        self._looked = False
        self._next_check = 1
        self._checks: list[Check] = []
        self._squares: dict[tuple[str, str], dict[int, float]] = {}
        self._clips: tuple[int, ...] = ()
        self._parts: list[Part] = []
        self._left = False
        self._over = False

    @property
    def is_first(self) -> bool:
        """Whether this rank reports."""
        return self.rank == 0

    def begin(self) -> None:
        """The loop begins, or goes on after it was left."""
        self._looked = self._left = self._over = False
        self._meeting = None
        _open.discard(self._slot)
        self._parts = []
        self.notices = []

    # -- while the loop runs ----------------------------------------------------------

    def wraps(self, label: str, model: nn.Module) -> None:
        """Note the wrapper that keeps the replicas of a model equal, if it is one."""
        if type(model).__name__ == "DistributedDataParallel":
            self._wrappers[label] = weakref.ref(model)

    def update_begins(self, loop: Loop, known: Known | None, number: int) -> None:
        """An update is about to be made: at steps 1, 2, 4, 8, … hash what it finds."""
        self.open(loop)
        if self.world < 2 or number < self._next_check:
            return
        while self._next_check <= number:
            self._next_check *= 2
        if self._meeting is not None and not self.is_first:
            self._ask(self._meeting.join)
        if number & (number - 1) == 0:
            self._learn(loop)
            self._hash(loop, known, number)

    def open(self, loop: Loop) -> None:
        """Find the others: called before the first backward ends, which they take part in."""
        if self._looked:
            return
        self._looked = True
        self.rank, self.world = rank_and_world()
        where = place() if self.world > 1 else None
        if where is None:
            if self.world > 1:
                self.notices.append(f"the other {self.world - 1} ranks could not be asked")
            return
        # Ranks must look at the same steps, and must not talk about which.
        loop.cadence.align()
        self._slot = next(slot for slot in itertools.count() if slot not in _open)
        _open.add(self._slot)
        self._meeting = Meeting(where, self._slot, self.rank, self.world)
        if self.is_first:
            self._ask(self._meeting.open)

    def _ask(self, question: Callable[[], T]) -> T | None:
        """Ask the store; where it is gone, this rank goes on alone."""
        try:
            return question()
        except Exception as error:
            self._meeting = None
            self.notices.append(f"the other ranks could not be asked: {error!r:.200}")
            return None

    def postpones_stop(self, step: int) -> bool:
        """Whether the loop must not end here, since other ranks wait for this one.

        All of them end after the next step of those at which they ask each other: by then
        each has seen this one's wish, as no backward ends without all of them.
        """
        meeting = self._meeting
        if meeting is None:
            return False
        return self._ask(lambda: meeting.ask_to_stop(next_stop(step))) is not None

    def stops(self, step: int) -> bool:
        """Whether all ranks end after `step`."""
        meeting = self._meeting
        if meeting is None or next_stop(step - 1) != step:
            return False
        asked = self._ask(meeting.asked_to_stop)
        return asked is not None and step >= asked

    def _learn(self, loop: Loop) -> None:
        """Learn which parameters are split, and which are to be the same elsewhere."""
        for path, parameter in loop.observer.parameters.items():
            share = share_of(parameter)
            if share is not None:
                if len(share.parts) > 1:
                    self.shares[path] = share.parts
                self._copies[path] = share.copies
        for label, wrapper in self._wrappers.items():
            model = wrapper()
            if model is None:
                continue
            ranks = replicas_of(model)
            ignored = {joined(label, p) for p in getattr(model, "parameters_to_ignore", ())}
            for path in loop.observer.parameters:
                if path.startswith(f"{label}.") and path not in ignored:
                    self._copies[path] = ranks

    def _hash(self, loop: Loop, known: Known | None, number: int) -> None:
        paths: list[str] = []
        sums: list[Tensor] = []
        with torch.no_grad():
            for path, parameter in loop.observer.parameters.items():
                if not can_be_hashed(parameter):
                    continue
                gradient = parameter.grad
                if gradient is not None and not can_be_hashed(gradient):
                    gradient = None
                two = bits(parameter)
                grad = torch.zeros_like(two) if gradient is None else bits(gradient)
                paths.append(path)
                sums.append(pieces(torch.cat([two, grad.to(two.device)])).reshape(-1))
        copies = {path: self._copies[path] for path in paths if len(self._copies.get(path, ())) > 1}
        loose = {p for p in paths if p not in self._copies}
        kind, own = ("", 0) if known is None else (known.kind, known.steps)

        def take(values: list[float]) -> None:
            each = {p: whole(values[16 * i : 16 * i + 16]) for i, p in enumerate(paths)}
            self._checks.append(
                Check(
                    number, kind, own,
                    weights={p: s[:2] for p, s in each.items() if p in copies or p in loose},
                    gradients={p: s[2:] for p, s in each.items() if p in loose},
                    copies=copies,
                )
            )  # fmt: skip

        if sums:
            loop.series.readback.submit(sums, take)

    def note_backward(
        self, loop: Loop, norms: Mapping[int, Tensor], without: Collection[int], number: int
    ) -> None:
        """Keep the gradients' squares as backward left them, by the ranks that share them."""
        if not self.shares:
            return
        groups: dict[str, list[Tensor]] = {}
        for path, parameter in loop.observer.parameters.items():
            found = norms.get(id(parameter))
            if found is not None and id(parameter) not in without:
                key = group_key(self.shares.get(path, ()))
                groups.setdefault(key, []).append(found.reshape(()).double())
        sums = [torch.stack(found).square().sum() for found in groups.values()]
        self._later(loop, "backward_gradient_norm", list(groups), sums, number, scaled=True)

    def note_clip(self, loop: Loop, norm: Tensor, number: int, *, scaled: bool) -> None:
        """Keep this rank's share of a clipping norm that is not added up yet."""
        placements = getattr(norm, "placements", None) or ()
        if all(p.is_replicate() for p in placements):
            return
        share = share_of(norm)
        if share is not None and len(share.parts) > 1:
            self._clips = share.parts
            value = here(norm.detach()).reshape(()).double().square()
            key = group_key(share.parts)
            self._later(loop, "norm_before_clipping", [key], [value], number, scaled=scaled)

    def _later(
        self,
        loop: Loop,
        metric: str,
        keys: list[str],
        sums: list[Tensor],
        number: int,
        *,
        scaled: bool,
    ) -> None:
        scale = loop.scaling.scale if scaled else None

        def take(values: list[float]) -> None:
            for key, value in zip(keys, values, strict=True):
                self._squares.setdefault((metric, key), {})[number] = value

        if sums:
            if scale is not None:
                sums = [value / scale.to(value.device).double().square() for value in sums]
            loop.series.readback.submit(sums, take)

    # -- when it is over --------------------------------------------------------------

    def leave(self, gather: Callable[[], Trace]) -> None:
        """The loop is over: hand in what this rank saw, unless it is the first."""
        self._over = True
        _open.discard(self._slot)
        if self._meeting is None or self.is_first or self._left:
            return
        self._left = True
        try:
            self._meeting.leave(self._part(gather()).encoded(), PATIENCE)
        except Exception as error:  # the loop's end is the user's
            self.notices.append(f"this rank could not hand over what it saw: {error!r}")

    def collect(self, *, limit: float = PATIENCE) -> None:
        """Take what the others handed in; who does not answer within `limit` is told."""
        if self._meeting is None or not self.is_first or self._left or not self._over:
            return
        self._left = True
        found, absent = self._meeting.collect(limit)
        silent = set(range(1, self.world)) - found.keys() - set(absent)
        for rank, value in sorted(found.items()):
            try:
                self._parts.append(decoded(value))
            except ValueError as error:
                self.notices.append(f"what rank {rank} handed over cannot be read: {error}")
        if silent:
            self.notices.append(f"{_named(silent)} did not answer within {limit:g} s")
        if absent:
            self.notices.append(f"{_named(set(absent))} made no watched step")
        if silent or absent:
            self.notices.append(
                f"losses are the mean of {1 + len(self._parts)} of {self.world} ranks"
            )

    def _part(self, trace: Trace) -> Part:
        squares = [
            Points(metric, key, tuple(values), tuple(values.values()))
            for (metric, key), values in self._squares.items()
        ]
        return part_of(trace, self.rank, self.shares, self._checks, squares)

    def applied(self, trace: Trace) -> Trace:
        """Return `trace` with what the ranks know together, as far as that is known.

        Args:
            trace: What this rank saw, paths with their models' labels.
        """
        if self.world < 2:
            return trace
        clips = bool(self._clips)
        if not (self.is_first and self._left):
            known = RankFacts(self.world, (self.rank,))
            return _with(without_shards(trace, self.shares, clips=clips), known)
        parts = [self._part(trace), *self._parts]
        facts = ranks_facts(self.world, parts)
        trace, lost = merged(trace, parts, self.shares, clips=self._clips)
        self.notices += [text for text in lost if text not in self.notices]
        return _with(trace, facts, fault=next((part.fault for part in parts if part.fault), ""))


def next_stop(step: int) -> int:
    """Return the next step at which ranks ask each other whether to end: 1, 2, 4, 8, 16, 32, 48."""
    if step < STOPS:
        return int(1 << step.bit_length())
    return (step // STOPS + 1) * STOPS


def _with(trace: Trace, ranks: RankFacts, *, fault: str = "") -> Trace:
    loop = trace.facts.loop
    if loop is None:
        return trace
    loop = replace(loop, ranks=ranks, fault=loop.fault or fault)
    return trace.but(facts=replace(trace.facts, loop=loop))


def _named(ranks: set[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"
