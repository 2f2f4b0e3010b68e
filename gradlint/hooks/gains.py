"""Gradient norms at every operation of one backward: the gains of the chain rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from gradlint.decompose import Edge
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.ranks import here
from gradlint.metrics.base import l2_norm

Gradients = Sequence[Tensor | None]


@dataclass
class Gains:
    """Norms read back: of the gradient at each operation, and along each edge."""

    norms: dict[int, float] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    """Operations as backward ran them."""


class GainRecorder:
    """Context: hooks every node of a captured graph during one backward, then removes them.

    Nothing is read back inside; `tensors` holds device scalars until `gains` is called with
    their values. Under a double backward only the first pass is recorded. `failed` is told
    of our own mistakes; where there is none they are raised.
    """

    def __init__(
        self, captured: CapturedGraph, failed: Callable[[Exception], None] | None = None
    ) -> None:
        self.captured = captured
        self._failed = failed
        self.tensors: list[Tensor] = []
        self._slots: list[tuple[str, int, int]] = []
        self._seen: set[int] = set()
        self._order: list[int] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for identity, node in self.captured.nodes.items():
            self._handles.append(node.register_hook(self._hook(identity)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.captured = CapturedGraph(self.captured.graph)  # its nodes keep tensors alive

    def _hook(self, identity: int) -> Callable[[Any, Any], None]:
        edges = self.captured.edges[identity]

        def record(
            grad_inputs: Sequence[Tensor | None], grad_outputs: Sequence[Tensor | None]
        ) -> None:
            if identity in self._seen:
                return
            self._seen.add(identity)
            self._order.append(identity)
            try:
                with torch.no_grad():
                    self._measure(identity, edges, grad_inputs, grad_outputs)
            except Exception as error:
                if self._failed is None:
                    raise
                self._failed(error)

        return record

    def _measure(
        self, identity: int, edges: Sequence[int | None], into: Gradients, out: Gradients
    ) -> None:
        norms = [l2_norm(here(g)) for g in out if g is not None]
        if norms:
            self._put("node", identity, identity, _together(norms))
        for target, gradient in zip(edges, into, strict=False):
            if target is not None and gradient is not None:
                self._put("edge", identity, target, l2_norm(here(gradient)))

    def _put(self, what: str, source: int, target: int, value: Tensor) -> None:
        self._slots.append((what, source, target))
        self.tensors.append(value)

    def gains(self, values: Sequence[float]) -> Gains:
        """Return the norms, given the `values` of `tensors` in their order."""
        gains = Gains(order=list(self._order))
        for (what, source, target), value in zip(self._slots, values, strict=True):
            if what == "node":
                gains.norms[source] = value
            else:
                gains.edges.append(Edge(source, target, value))
        return gains


def _together(norms: list[Tensor]) -> Tensor:
    return norms[0] if len(norms) == 1 else l2_norm(torch.stack(norms))
