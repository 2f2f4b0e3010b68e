"""Readout: from scalars on their devices to observations and flows of one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlint.decompose import by_layer, decompose
from gradlint.facts import Flow
from gradlint.graph import WEIGHTED, Graph, Operation
from gradlint.hooks.gains import GainRecorder, Gains
from gradlint.observation import Observation, Site


@dataclass(frozen=True)
class Unread:
    """What was measured and not read back: scalars that are still on their device."""

    pending: list[tuple[str, Site, int, Tensor]]
    recorder: GainRecorder | None
    graph: Graph
    step: int

    @property
    def tensors(self) -> list[Tensor]:
        """The scalars, in the order `Observer.deliver` wants their values in."""
        gains = self.recorder.tensors if self.recorder is not None else []
        return [value for *_, value in self.pending] + gains


def read_together(tensors: list[Tensor]) -> list[float]:
    """Read scalars back with one copy from each device, in their order."""
    places: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(index)
    values = [0.0] * len(tensors)
    for indices in places.values():
        stacked = torch.stack([tensors[i].reshape(()).to(torch.float64) for i in indices])
        for index, value in zip(indices, stacked.tolist(), strict=True):
            values[index] = value
    return values


def flows_of(
    graph: Graph, gains: Gains, step: int, site_of: Callable[[Operation], Site]
) -> tuple[list[Observation], list[Flow]]:
    """Return what the gains of one backward say of each weight layer.

    Args:
        graph: Structure of the forward.
        gains: Norms at its operations.
        step: Number of the step.
        site_of: Gives the site of an operation.

    Returns:
        The pre-activation gradient norms, and the flows: of a layer called more than once
        those of the call that got the most.
    """
    decades = decompose(graph, gains.norms, gains.edges)
    best: dict[str, Operation] = {}
    for op in graph:
        if op.kind not in WEIGHTED or op.in_loss or op.id not in gains.norms:
            continue
        path = op.module or ""
        if path not in best or gains.norms[op.id] > gains.norms[best[path].id]:
            best[path] = op
    observations: list[Observation] = []
    flows: list[Flow] = []
    for path, op in sorted(best.items(), key=lambda item: item[1].id):
        norm = gains.norms[op.id]
        site = replace(site_of(op), path=path)
        observations.append(Observation("pre_activation_grad_norm", site, step, norm))
        if op.id not in decades:
            continue
        earliest = not flows
        layers = by_layer(graph, gains.norms, gains.edges, op.id) if earliest else {}
        start = gains.norms.get(graph.operations[-1].id, 1.0)
        flows.append(Flow(step, site, decades[op.id], layers, norm, start))
    return observations, flows
