"""Noise: whether gradients of consecutive steps have a direction in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.watching.cadence import FIRST_LIGHT
from gradlint.watching.sampling import local

STEPS = 8
"""Consecutive steps compared; the ratio of pure noise scatters by 1/8 · √(2/S)."""

ENTRIES = 256
"""Entries of each weight's gradient, the same at every step."""

APART = 24
"""Steps from one comparison to the next, once the first steps are over: a loop that is looked at now and
then has no consecutive looks, and one looked at all the time need not pay for it each time."""

MAX_WEIGHTS = 64
"""Weights followed; more would tell the same."""


class Noise:
    """Keeps a few entries of each weight's gradient, as backward left it."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Tensor]] = {}
        self._last = -1

    def note(
        self,
        number: int,
        parameters: Mapping[str, nn.Parameter],
        observer: Observer,
        without: Collection[int] = (),
    ) -> None:
        """Keep the gradients of step `number`; after `STEPS` in a row, measure."""
        if number > FIRST_LIGHT and number % APART >= STEPS:
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
            flat = local(gradient).reshape(-1)
            sample = flat[:: max(1, flat.numel() // ENTRIES)][:ENTRIES].clone()
            samples = self._kept.setdefault(path, [])
            if samples and samples[-1].shape != sample.shape:
                samples.clear()  # another layer took its place
            samples.append(sample)
            if len(samples) == STEPS:
                observer.put_at(
                    "gradient_signal_to_noise", observer.weights.site(path), torch.stack(samples)
                )
                samples.clear()
