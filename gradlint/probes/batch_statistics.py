"""Are BatchNorm's running statistics those of the batches? Some passes in training mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.metrics.batch_statistics_gap import batch_statistics_gap
from gradlint.target.trial import copied

BATCHES = 3
"""Batches whose statistics are averaged: one may be unlike the others."""

_BatchNorm = nn.modules.batchnorm._BatchNorm


class _Inputs:
    """Adds up the statistics of what each BatchNorm is given."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.samples: dict[str, int] = {}
        self.calls: dict[str, int] = {}

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Take mean and variance of what a BatchNorm in training mode is given."""
        if not isinstance(module, _BatchNorm) or not module.training:
            return
        tensors = [t for _, t in named_tensors(inputs, "input")]
        if len(tensors) != 1 or tensors[0].ndim < 2:
            return
        given = tensors[0]
        channels_last = given.detach().to(torch.float64).movedim(1, -1)
        values = channels_last.reshape(-1, given.shape[1])  # (N·positions, C)
        if len(values) < 2:
            return
        self.calls[path] = self.calls.get(path, 0) + 1
        self.samples[path] = self.samples.get(path, 0) + len(given)
        self.seen.setdefault(path, []).append((values.mean(dim=0), values.var(dim=0)))

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Nothing to do."""


def batch_statistics(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], batches: Sequence[Any]
) -> Mapping[str, Any] | None:
    """Compare running statistics with those of some batches, on a copy of `model`.

    Args:
        model: The model after training; unchanged.
        run: Calls a model on a batch.
        batches: Batches of the training, at least one.

    Returns:
        By module path, for each BatchNorm in training mode that is called once in a forward:
        ``gap`` (see `batch_statistics_gap`), ``settled`` (the same of running statistics freed
        of what is left of the zeros and ones they began with), ``momentum``, ``updates``,
        ``samples``; None if there is none.
    """
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return None
    twin = copied(model, model)
    inputs = _Inputs()
    used = list(batches[:BATCHES])
    with torch.no_grad(), HookManager(twin, inputs):
        for batch in used:
            run(twin, batch)
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or inputs.calls.get(path) != len(used):
            continue
        seen = inputs.seen[path]
        mean = torch.stack([m for m, _ in seen]).mean(dim=0)
        variance = torch.stack([v for _, v in seen]).mean(dim=0)
        if module.running_mean is None or module.running_var is None:
            continue
        running = (module.running_mean.to(torch.float64), module.running_var.to(torch.float64))
        updates = 0 if module.num_batches_tracked is None else int(module.num_batches_tracked)
        left = (1 - module.momentum) ** updates if module.momentum is not None else 0.0
        settled = running
        if 0 < left < 1:
            settled = (running[0] / (1 - left), ((running[1] - left) / (1 - left)).clamp(min=0))
        found[path] = {
            "gap": float(batch_statistics_gap(*running, mean, variance)),
            "settled": float(batch_statistics_gap(*settled, mean, variance)),
            "momentum": module.momentum,
            "updates": updates,
            "samples": inputs.samples[path],
        }
    return found or None
