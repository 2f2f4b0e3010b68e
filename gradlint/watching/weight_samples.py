"""WeightSamples: entries of weights as an update finds them, and how it changes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradlint.watching.sampling import BLOCK, SAMPLE, local, sample, stride_of


class WeightSamples:
    """Copies of weights that serve one step after another.

    Making a copy of each weight anew takes several times as long as filling those that are
    there. Views are kept for one step: they would keep the memory of a weight that was moved.
    """

    def __init__(self) -> None:
        self._copies: dict[int, Tensor] = {}
        self._before: list[Tensor] = []
        self._views: list[Tensor] = []

    def keep(self, parameters: Sequence[nn.Parameter], moving: Sequence[int]) -> list[Tensor]:
        """Copy samples of the parameters at `moving`; return the copies."""
        self._views = [_view(parameters[index]) for index in moving]
        self._before = []
        for index, view in zip(moving, self._views, strict=True):
            copy = self._copies.get(index)
            if copy is None or not _alike(copy, view):
                copy = self._copies[index] = torch.empty_like(view)
            self._before.append(copy)
        if self._views:
            torch._foreach_copy_(self._before, self._views)
        return self._before

    def change(self, parameters: Sequence[nn.Parameter], moving: Sequence[int]) -> list[Tensor]:
        """Return what became of those samples, less what they were."""
        views, self._views = self._views, []
        now = [_now(parameters[index], view) for index, view in zip(moving, views, strict=True)]
        return list(torch._foreach_sub(now, self._before)) if now else []

    def drop(self) -> None:
        """Keep no view into a weight."""
        self._views = []


def _view(parameter: nn.Parameter) -> Tensor:
    """Return a sample of a weight, under `no_grad`: a plain one is seen without a detour."""
    if (
        type(parameter) is nn.Parameter
        and parameter.is_contiguous()
        and parameter.is_floating_point()
    ):
        count = parameter.numel()
        if count > SAMPLE:
            return parameter.as_strided((SAMPLE // BLOCK, BLOCK), (stride_of(count), 1))
        return parameter.as_strided((count,), (1,))
    return sample(local(parameter))


def _now(parameter: nn.Parameter, view: Tensor) -> Tensor:
    """Return a sample of a weight: `view`, if it still shows where the weight is."""
    if type(parameter) is nn.Parameter and parameter.is_contiguous():
        place = parameter.data_ptr()  # memory that was given back is nowhere
        if place and view.data_ptr() == place and parameter.dtype is view.dtype:
            return view
    return _view(parameter)


def _alike(copy: Tensor, view: Tensor) -> bool:
    same = copy.shape == view.shape and copy.dtype == view.dtype and copy.device == view.device
    return same and not copy.is_inference()  # which nobody may fill later
