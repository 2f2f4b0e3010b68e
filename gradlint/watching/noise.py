"""Noise: whether gradients of consecutive steps have a direction in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.watching.sampling import local

STEPS = 8
"""Consecutive steps compared; the ratio of pure noise scatters by 1/8 · √(2/S)."""

ENTRIES = 256
"""Entries of each weight's gradient, the same at every step."""

ENOUGH = 64
"""Comparisons after which one run of `STEPS` in eight does: they know the median of pure noise
to 0.005, half of what GL307 asks for."""

MAX_WEIGHTS = 64
"""Weights followed; more would tell the same."""


class Noise:
    """Keeps a few entries of each weight's gradient, as backward left it."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Tensor]] = {}
        self._last = -1
        self._made = 0

    def note(
        self,
        number: int,
        parameters: Mapping[str, nn.Parameter],
        observer: Observer,
        without: Collection[int] = (),
    ) -> None:
        """Keep the gradients of step `number`; after `STEPS` in a row, measure."""
        if self._made >= ENOUGH and number // STEPS % 8:
            return
        if number != self._last + 1:
            self._kept.clear()
        self._last = number
        for path, parameter in parameters.items():
            gradient = parameter.grad
            if gradient is None or parameter.ndim < 2 or id(parameter) in without:
                continue
            if gradient.is_sparse or (path not in self._kept and len(self._kept) >= MAX_WEIGHTS):
                continue
            sample = _entries(local(gradient)).clone()
            samples = self._kept.setdefault(path, [])
            if samples and samples[-1].shape != sample.shape:
                samples.clear()  # another layer took its place
            samples.append(sample)
            if len(samples) == STEPS:
                observer.put_at(
                    "gradient_signal_to_noise", observer.weights.site(path), torch.stack(samples)
                )
                samples.clear()
                self._made += 1


def _entries(gradient: Tensor) -> Tensor:
    """Return some entries as a view, in one call where memory allows."""
    count = gradient.numel()
    apart = max(1, count // ENTRIES)
    if gradient.is_contiguous():
        return gradient.as_strided((min(count, ENTRIES),), (apart,))
    return gradient.reshape(-1)[::apart][:ENTRIES]
