"""Data: what the first looked-at steps were given and what they returned, as statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradlint.engine import Observer
from gradlint.facts import LossFacts, TensorFacts
from gradlint.hooks import loss as losses
from gradlint.hooks.merge import Places, merged_losses
from gradlint.hooks.tensor_facts import merged, named_tensors, tensor_facts
from gradlint.probes.questions import of_targets

BATCHES = 3
"""Batches looked at: one batch's accident must not look like the data's."""

LABELED = 12
"""Batches whose targets are looked at: sorted data shows over several."""

MAX_ENTRIES = 1 << 22
"""Larger tensors are described by a sample of this many entries."""


class Data:
    """Statistics of inputs, targets and outputs; never their entries."""

    def __init__(self) -> None:
        self._inputs: list[tuple[TensorFacts, ...]] = []
        self._targets: list[tuple[TensorFacts, ...]] = []
        self._outputs: list[tuple[TensorFacts, ...]] = []
        self._losses: list[LossFacts] = []
        self._places = Places()
        self._raised: tuple[LossFacts, ...] = ()
        self._given: Any = None
        self._count = 0

    def begin(self, inputs: Any) -> None:
        """Note what a model is called with, until its backward."""
        if self._count < BATCHES and self._given is None:
            self._given = inputs

    def note(self, observer: Observer) -> None:
        """Describe what entered, what came out and what the loss compared it with."""
        given, self._given = self._given, None
        if len(self._targets) >= LABELED or observer.captured is None:
            return
        if self._count >= BATCHES:
            self._note_losses(observer)
            return
        self._count += 1
        self._inputs.append(_described(_only(given), "input"))
        self._outputs.append(_described(observer.outputs, "output"))
        self._losses += self._note_losses(observer)

    def _note_losses(self, observer: Observer) -> list[LossFacts]:
        if observer.captured is None:
            return []
        outputs = [t for _, t in named_tensors(observer.outputs, "output") if t.is_floating_point()]
        found = losses.from_graph(observer.captured, outputs, [])
        found = self._places.placed(found, observer.captured.graph, observer.graph)
        if all(f.operation is None or f.operation >= 0 for f in found):
            self._targets.append(tuple(f.target for f in found if f.target is not None))
        return found

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
        if all(t.device.type == "cpu" for _, t in named_tensors(_only(given), "input")):
            self._inputs.append(_described(_only(given), "input"))

    def forget(self) -> None:
        """Let go of what a model was called with: no backward will follow."""
        self._given = None

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
        """What the targets of several batches say of the order of the data."""
        seen = of_targets(self._targets)
        return {} if seen is None else {"targets": seen}

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


def _only(given: Any) -> Any:
    """Return what a model was called with: the one argument, or all of them by name."""
    args, kwargs = given if given is not None else ((), {})
    return args[0] if len(args) == 1 and not kwargs else {**dict(enumerate(args)), **kwargs}


def _described(value: Any, name: str) -> tuple[TensorFacts, ...]:
    return tuple(
        tensor_facts(label, tensor)
        for label, tensor in named_tensors(value, name)
        if not tensor.is_meta and tensor.numel() <= MAX_ENTRIES
    )
