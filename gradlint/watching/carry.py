"""Carry: whether an optimizer's gradients were cleared between two of its steps."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradlint.hooks.ranks import here
from gradlint.hooks.tensor_facts import number
from gradlint.watching.sampling import norms

PROBED = 8
"""Parameters of each optimizer that are followed; a loop that forgets to clear forgets all."""

_SAMPLE = 256


@dataclass
class _State:
    """One followed gradient, as it was after the step or the latest backward."""

    parameter: weakref.ref[nn.Parameter]
    gradient: weakref.ref[Tensor]
    version: int
    smallest: Tensor | None = None
    """Smallest norm seen when a backward began."""
    added: bool = False
    """Whether a backward added to it."""


@dataclass
class Carry:
    """Follows the gradients of one optimizer from one of its steps to the next.

    A gradient is carried while `.grad` is the same tensor, nobody but backward has written
    to it, and backward has: master weights whose `.grad` is set by hand before each step
    keep the last one until then, and nothing adds to it. `tensor.data.zero_()` leaves no
    mark on the tensor, so its norm is looked at, too, where the caller wants numbers.
    """

    _states: list[_State] = field(default_factory=list)
    _stepped: bool = False

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """Note the gradients that a step leaves behind."""
        self._states = []
        self._stepped = True
        spread = max(1, len(parameters) // PROBED)
        for parameter in parameters[::spread][:PROBED]:
            gradient = parameter.grad
            if gradient is not None and not gradient.is_sparse:
                self._states.append(
                    _State(weakref.ref(parameter), weakref.ref(gradient), here(gradient)._version)
                )

    def forget(self) -> None:
        """Follow nothing: nobody will ask."""
        self._states = []
        self._stepped = False

    def backward_begins(self, *, numbers: bool) -> None:
        """Drop what was cleared since; with `numbers`, measure what was not."""
        kept: list[_State] = []
        for state in self._states:
            gradient = _gradient(state)
            if gradient is None or here(gradient)._version != state.version:
                continue
            if numbers:
                sample = here(gradient).detach().reshape(-1)[:_SAMPLE]
                (norm,) = norms([sample])
                smallest = state.smallest
                state.smallest = norm if smallest is None else torch.minimum(smallest, norm)
            kept.append(state)
        self._states = kept

    def backward_ended(self) -> None:
        """Take what backward added as its own doing."""
        for state in self._states:
            gradient = _gradient(state)
            if gradient is not None:
                now = here(gradient)._version
                state.added |= now != state.version
                state.version = now

    def carried(self) -> Tensor | None:
        """Return the norm of what was carried to this step; None where nothing can be said."""
        if not self._stepped:
            return None
        added = [s for s in self._states if s.added]
        norms = [s.smallest for s in added if s.smallest is not None]
        if added and not norms:
            return None
        if not norms:
            return torch.zeros(())
        together = torch.stack([n.to(norms[0].device) for n in norms])
        total: Tensor = torch.linalg.vector_norm(together)
        return total


def cleared(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether no gradient of an earlier backward is left, as far as the host can tell."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        found = here(gradient)
        if found.device.type != "cpu" or found.layout is not torch.strided:
            return False
        if number(found.detach().reshape(-1)[:_SAMPLE].any()):
            return False
    return True


def _gradient(state: _State) -> Tensor | None:
    """Return the gradient if it is still the parameter's."""
    parameter, gradient = state.parameter(), state.gradient()
    if parameter is None or gradient is None or parameter.grad is not gradient:
        return None
    return gradient
