"""Cast: the models and optimizers of a loop, and which of them holds what."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from gradlint.hooks.weak import joined
from gradlint.observation import MODEL, Site
from gradlint.probes.wiring import unregistered
from gradlint.trace import Event
from gradlint.watching.cadence import Look
from gradlint.watching.facts_of import facts_of_optimizer
from gradlint.watching.optimizers import Known
from gradlint.watching.roots import is_trained_before, owners, unwrapped

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop


class Cast:
    """Who takes part in a loop; models come with a label each, which is never used twice."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._labels: dict[int, str] = {}
        self._used: set[str] = set()

    def admit(self, model: nn.Module, label: str) -> str | None:
        """Take up a model; return its label, or None if it takes part already."""
        inner = unwrapped(model)
        known = self._labels.get(id(inner))
        if known is not None and self.loop.observer.roots.get(known) is inner:
            return None
        name, count = label, 1
        while name in self._used:  # a model that is gone keeps its numbers
            count += 1
            name = f"{label}{count}"
        self._labels[id(inner)] = name
        self._used.add(name)
        self.loop.compiled.admit(name, model)
        self.loop.loaded = self.loop.loaded or is_trained_before(inner)
        self.loop.observer.admit(inner, label=name)
        self._own_up(inner)
        self.loop.discovery.know(model)
        self.loop.ranks.wraps(name, model)
        for event in unregistered(inner):
            path = joined(name, event.module or "")
            self.loop.observer.events.append(Event(event.name, 0, path, event.detail))
        return name

    def _own_up(self, model: nn.Module) -> None:
        """Count no more as foreign what an optimizer holds of a model that is found after it."""
        own = {id(p) for p in model.parameters()}
        for known in self.loop.optimizers:
            facts = known.facts
            if facts is not None and facts.foreign:
                found = sum(id(p) in own for p in known.parameters())
                known.facts = replace(facts, foreign=max(0, facts.foreign - found))

    def stream(self, known: Known | None) -> Site:
        """Return the site of the loss that belongs to an optimizer's steps."""
        if known is None:
            return MODEL
        if known.site is None:
            own = {id(p): path for path, p in self.loop.observer.parameters.items()}
            paths = [own[id(p)] for p in known.parameters() if id(p) in own]
            label = paths[0].partition(".")[0] if paths else known.kind
            taken = {k.site.path for k in self.loop.optimizers if k.site is not None}
            known.site = Site(label if label not in taken else f"{label}:{known.kind}", "loss")
        return known.site

    def goes_on(self, old: Known, new: Known) -> bool:
        """Whether one optimizer follows the loss of one before it, as far as losses were seen."""
        before = self.loop.data.kinds(old.first_at, old.last_at)
        after = self.loop.data.kinds(new.first_at, max(new.first_at, new.last_at))
        return before is None or after is None or after <= before

    def first_step(self, known: Known) -> None:
        """Learn what an optimizer holds, and whether all of it is known."""
        optimizer = known.optimizer()
        watched = {id(p) for p in self.loop.observer.parameters.values()}
        if any(id(p) not in watched for p in known.parameters()):
            for label, model in list(self.loop.observer.roots.items()):
                self.loop.refresh(label, model)
            if self.loop.discover:
                self._find_owners(known)
        if optimizer is not None:
            known.facts = facts_of_optimizer(optimizer, self.loop.observer.parameters)
            held = {id(p) for p in known.parameters()}
            for path, parameter in self.loop.observer.parameters.items():
                self.loop.held[path] = self.loop.held.get(path, False) or id(parameter) in held
        if not self.loop.discover:
            return
        own = {id(p) for p in self.loop.observer.parameters.values()}
        if all(id(p) in own for p in known.parameters()):
            self.loop.discovery.stop()
        elif not self.loop.discovery.running:
            self.loop.discovery.start()

    def _find_owners(self, known: Known) -> None:
        """Find the models of parameters that train though no call of theirs was seen.

        And of those that are meant to, and were called without gradient.
        """
        watched = {id(p) for p in self.loop.observer.parameters.values()}
        quiet = self.loop.discovery.called_quietly()
        meant = [
            p
            for p in known.parameters()
            if id(p) not in watched and (p.grad is not None or (p.requires_grad and id(p) in quiet))
        ]
        for label, model in owners(meant):
            self.loop.admit(model, label)
        interval, observer = self.loop.interval, self.loop.observer
        if interval is not None and interval.initial and interval.look is Look.FULL:
            still = {id(p) for p in meant if p.grad is None}  # its step did not move them
            for path in [path for path, p in observer.parameters.items() if id(p) in still]:
                observer.weights.initial(path)

    def find_optimizers(self) -> None:
        """Find optimizers that did not step, and what they hold: it may be gone at the end."""
        if self.loop.given or self.loop.optimizers.inside:
            return
        # Under `discover` each told of itself when it was made.
        self.loop.optimizers.find(
            self.loop.observer.parameters.values(), everywhere=not self.loop.discover
        )
        held = {id(p) for known in self.loop.optimizers if known.found for p in known.parameters()}
        for path, parameter in self.loop.observer.parameters.items():
            if id(parameter) in held:
                self.loop.held[path] = True
