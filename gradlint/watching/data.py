"""Data: what the first looked-at steps were given and what they returned, as statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gradlint.engine import Observer
from gradlint.facts import LossFacts, TensorFacts
from gradlint.hooks import loss as losses
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.merge import Places, merged_losses
from gradlint.hooks.tensor_facts import merged, named_tensors
from gradlint.hooks.written import Numbers, written
from gradlint.probes.target_values import target_values
from gradlint.watching.described import described, only
from gradlint.watching.later import Later
from gradlint.watching.links import Links
from gradlint.watching.terms import Terms

BATCHES = 3
"""Batches looked at: one batch's accident must not look like the data's."""

LABELED = 12
"""Batches whose targets are looked at: sorted data shows over several."""

MAX_LOSSES = 32
"""Losses that are told apart: a graph that is another one at each step must not cost for ever."""


class Data:
    """Statistics of inputs, targets and outputs; never their entries."""

    def __init__(self) -> None:
        self._inputs: list[tuple[TensorFacts, ...]] = []
        self._targets: list[tuple[TensorFacts, ...]] = []
        self._outputs: list[tuple[TensorFacts, ...]] = []
        self._losses: list[LossFacts] = []
        self._written: dict[str, Numbers] = {}
        self._places = Places()
        self._raised: tuple[LossFacts, ...] = ()
        self._given: Any = None
        self.links = Links()
        self.terms = Terms()
        self.later = Later()
        self._count = 0
        self._again = 0
        """Batches of a later phase whose losses are still to be described."""
        self._first = self._collects = True
        self._ends: set[tuple[object, ...]] = set()
        """What tells the losses apart that were described; see `end_of`."""
        self._ends_of_step: set[tuple[object, ...]] = set()
        self.taken_at = 0
        """The latest step whose losses were described."""
        self._kinds: dict[int, set[tuple[str, int | None]]] = {}
        """What kinds of losses were met at such steps."""

    def begin(self, inputs: Any) -> None:
        """Note what a model is called with, until its backward."""
        if self._count < BATCHES and self._given is None:
            self._given = inputs

    def begin_step(self) -> None:
        """Let go of the outputs of a forward that no backward followed."""
        self.links.begin()
        self.terms.begin()
        self.later.begin()

    def note(self, observer: Observer, loss: Tensor, step: int) -> None:
        """Describe what entered, what came out and what the loss compared it with."""
        given, self._given = self._given, None
        captured, self._ends_of_step = observer.captured, set()
        if captured is None:
            return
        first = self._first = self._count < BATCHES
        self._collects = first or self._again > 0
        taken = self._takes(loss)
        if not taken and len(self._targets) >= LABELED:
            return
        found = self._found(observer, captured)
        if len(self._targets) < LABELED and all(
            f.operation is None or f.operation >= 0 for f in found
        ):
            self._targets.append(tuple(f.target for f in found if f.target is not None))
        if taken:
            self._keep(found, step)
        if first:
            self._count += 1
            self._inputs.append(described(only(given), "input"))
            self._outputs.append(described(observer.outputs, "output"))
            self._note_written(observer, captured)
        elif self._again:
            self._again -= 1

    def note_another(self, observer: Observer, loss: Tensor, step: int) -> None:
        """Describe what a further loss of the step compared, unless it is one like the others."""
        if not self._takes(loss):
            return
        captured = observer.read_graph(loss)
        self._keep(self._found(observer, captured), step)
        if self._first:
            self._note_written(observer, captured)

    def kinds(self, first: int, last: int) -> set[tuple[str, int | None]] | None:
        """Return the kinds of the losses from `first` to `last`; None if none was looked at."""
        seen = [kinds for step, kinds in self._kinds.items() if first <= step <= last]
        return set().union(*seen) if seen else None

    def ask_again(self) -> None:
        """Take the losses of the next steps that are looked at, too: they may be of other data."""
        self._again = BATCHES

    def _takes(self, loss: Tensor) -> bool:
        """Whether a loss is to be described: while batches are collected, one of each; else new."""
        end = losses.end_of(loss)
        known = end in self._ends or len(self._ends) >= MAX_LOSSES
        seen = end in self._ends_of_step
        self._ends_of_step.add(end)
        if not known:
            self._ends.add(end)
        return not known or (self._collects and not seen)

    def _found(self, observer: Observer, captured: CapturedGraph) -> list[LossFacts]:
        found = losses.from_graph(captured, _floating(observer), [])
        return self._places.placed(found, captured.graph, observer.graph)

    def _note_written(self, observer: Observer, captured: CapturedGraph) -> None:
        self._written = {**written(captured, _floating(observer)), **self._written}

    def _keep(self, found: list[LossFacts], step: int) -> None:
        self._losses += found if self._first else [replace(f, step=step) for f in found]
        self.taken_at = step
        self._kinds.setdefault(step, set()).update((f.kind, f.classes) for f in found)

    def note_raised(self, loss: LossFacts) -> None:
        """Note what entered the loss that raised, and ended the loop."""
        self._raised = (loss,)

    def end(self) -> None:
        """Describe what a model was called with, where no backward ever followed.

        The loss may have raised: nothing else will be known of the inputs. Of an accelerator
        nothing is asked any more.
        """
        given = self._given
        if given is None or self._count:
            return
        if all(t.device.type == "cpu" for _, t in named_tensors(only(given), "input")):
            self._inputs.append(described(only(given), "input"))

    def forget(self) -> None:
        """Let go of what a model was called with: no backward will follow."""
        self._given = None
        self.begin_step()

    @property
    def inputs(self) -> tuple[TensorFacts, ...]:
        """Statistics of the inputs, all batches together."""
        return merged(self._inputs)

    @property
    def targets(self) -> tuple[TensorFacts, ...]:
        """Statistics of the targets that the losses kept."""
        return merged(self._targets[:BATCHES])

    @property
    def probes(self) -> dict[str, Mapping[str, Any]]:
        """What the targets of several batches say of their order, and losses by hand of theirs."""
        asked = {"targets": target_values(self._targets), "written-losses": self._written or None}
        return {name: seen for name, seen in asked.items() if seen is not None}

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """Statistics of the outputs."""
        return merged(self._outputs)

    @property
    def losses(self) -> tuple[LossFacts, ...]:
        """The losses, all batches together."""
        return (*merged_losses(self._losses), *self._raised)

    @property
    def batch_size(self) -> int | None:
        """First axis of the first input."""
        shapes = [facts.shape for batch in self._inputs[:1] for facts in batch if facts.shape]
        if not self._inputs:
            shapes = [seen.output.shape for seen in self._raised if seen.output is not None]
        return shapes[0][0] if shapes else None


def _floating(observer: Observer) -> list[Tensor]:
    """Return the outputs that a loss may descend."""
    return [t for _, t in named_tensors(observer.outputs, "output") if t.is_floating_point()]
