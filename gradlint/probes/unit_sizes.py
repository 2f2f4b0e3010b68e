"""Are a few units of a layer far larger than the rest? One forward pass after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.trial import copied

LEAST = 16
"""Units below which a layer has no rest to compare a few with."""

_CHANNELS_SECOND = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_UNITS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)


class _Units:
    """Keeps the root mean square of each unit of weight layers and normalizations."""

    def __init__(self) -> None:
        self.sizes: dict[str, Tensor] = {}
        self.last = ""

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Nothing to do."""

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Measure the units of what a layer returned."""
        if isinstance(module, _UNITS_LAST):
            axis = -1
        elif isinstance(module, _CHANNELS_SECOND):
            axis = 1
        else:
            return
        tensors = [t for _, t in named_tensors(output, "output") if t.is_floating_point()]
        if not tensors or tensors[0].ndim < 2:
            return
        self.last = path
        values = tensors[0].detach().to(torch.float64).movedim(axis, -1)
        if values.shape[-1] >= LEAST and path not in self.sizes:
            self.sizes[path] = values.reshape(-1, values.shape[-1]).square().mean(dim=0).sqrt()


def unit_sizes(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], batches: Sequence[Any]
) -> Mapping[str, Any] | None:
    """Compare the units of every weight layer and normalization, on a copy of `model`.

    Args:
        model: The model after training; unchanged.
        run: Calls a model on a batch.
        batches: Batches of the training, at least one.

    Returns:
        By module path: ``ratio`` (of the largest unit's root mean square to the median of all
        that are not zero), ``largest`` (that root mean square), ``units`` (their number) and
        ``large`` (how many are above a tenth of the largest). The last layer is left out: its
        units mean what the targets mean. None if nothing is left.
    """
    twin = copied(model, model)
    seen = _Units()
    with torch.no_grad(), HookManager(twin, seen):
        run(twin, batches[0])
    found: dict[str, Any] = {}
    for path, sizes in seen.sizes.items():
        alive = sizes[sizes > 0]
        if path == seen.last or len(alive) < LEAST or not torch.isfinite(sizes).all():
            continue
        largest = float(alive.max())
        found[path] = {
            "ratio": largest / float(alive.median()),
            "largest": largest,
            "units": len(sizes),
            "large": int((sizes > 0.1 * largest).sum()),
        }
    return found or None
