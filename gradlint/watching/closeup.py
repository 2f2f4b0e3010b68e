"""Closeup: one step looked at. What the loop tells it, and what it gives at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gradlint.hooks.ranks import here
from gradlint.hooks.tensor_facts import number
from gradlint.watching.sampling import local, norms


@dataclass(frozen=True, slots=True)
class Backward:
    """Gradient norms when a backward ended, by ``id(parameter)``."""

    norms: dict[int, Tensor]

    def total(self, without: Collection[int]) -> Tensor | None:
        """Return the norm over all parameters but those in `without`."""
        return total_norm([norm for key, norm in self.norms.items() if key not in without])


class Closeup(Protocol):
    """How closely a step is looked at, from its first forward to its update."""

    def admit(self, model: nn.Module, label: str) -> None:
        """A model was found while the step ran."""

    def backward_begins(self, loss: Tensor | None, *, create_graph: bool) -> None:
        """Backward starts from `loss`."""

    def backward_ended(self) -> None:
        """Backward returned, or raised."""

    def rest(self) -> None:
        """Forwards and backwards go by unseen from now on, until the update."""

    def measure(self, backward: Backward, without: Collection[int], *, initial: bool) -> None:
        """The optimizer is about to apply the gradients."""

    def before_update(self) -> None:
        """The weights are about to change."""

    def close(self, *, initial: bool) -> None:
        """The step is made: hand over what was measured."""

    def discard(self) -> None:
        """The step was not made, or nobody watches any more: remove hooks, drop everything."""


def norms_by_id(parameters: Sequence[nn.Parameter]) -> Backward:
    """Return the gradient norms of `parameters` as they are now."""
    held = [(p, p.grad) for p in parameters]
    grads = [(p, g) for p, g in held if g is not None]
    found = norms([local(g) for _, g in grads])
    return Backward({id(p): n for (p, _), n in zip(grads, found, strict=True)})


def total_norm(found: Sequence[Tensor]) -> Tensor | None:
    """Return the norm of all, as of one vector; None without any."""
    if not found:
        return None
    home = found[0].device
    alike = all(n.ndim == 0 and n.device == home and n.dtype == found[0].dtype for n in found)
    if not alike:
        found = [n.reshape(()).to(home, torch.float64) for n in found]
    total: Tensor = torch.linalg.vector_norm(torch.stack([*found]), dtype=torch.float64)
    return total


def host_value(value: Tensor) -> float | None:
    """Return a scalar's value where the host has it; None where it would have to wait."""
    if type(value) is Tensor and value.is_cpu and value.ndim == 0 and value.is_floating_point():
        return cast(float, value.tolist())  # nearly every loss, at every step
    value = here(value)
    if value.device.type != "cpu" or value.is_complex():
        return None
    return float(cast(float, value.tolist())) if value.ndim == 0 else number(value.detach())


Inputs = tuple[Any, Any]
