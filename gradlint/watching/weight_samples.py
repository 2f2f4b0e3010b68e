"""WeightSamples: entries of weights as an update finds them, and how it changes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradlint.watching.sampling import local, sample


class WeightSamples:
    """Views into weights, and copies of what they showed; both serve one step after another.

    Making a view and a copy of each weight anew takes several times as long as filling the
    copies that are there.
    """

    def __init__(self) -> None:
        self._views: dict[int, tuple[int, int, Tensor]] = {}
        self._copies: dict[int, Tensor] = {}
        self._before: list[Tensor] = []

    def keep(self, parameters: Sequence[nn.Parameter], moving: Sequence[int]) -> list[Tensor]:
        """Copy samples of the parameters at `moving`; return the copies."""
        views = [self._view(index, parameters[index]) for index in moving]
        self._before = []
        for index, view in zip(moving, views, strict=True):
            copy = self._copies.get(index)
            if copy is None or not _alike(copy, view):
                copy = self._copies[index] = torch.empty_like(view)
            self._before.append(copy)
        if views:
            torch._foreach_copy_(self._before, views)
        return self._before

    def change(self, parameters: Sequence[nn.Parameter], moving: Sequence[int]) -> list[Tensor]:
        """Return what became of those samples, less what they were."""
        views = [self._view(index, parameters[index]) for index in moving]
        return list(torch._foreach_sub(views, self._before)) if views else []

    def _view(self, index: int, parameter: nn.Parameter) -> Tensor:
        """Return a sample; the view made before, while the weight is where it was.

        A view keeps the memory it shows: no other weight can come to lie there, and a
        parameter that was given another tensor lies elsewhere.
        """
        if type(parameter) is not nn.Parameter or not parameter.is_contiguous():
            self._views.pop(index, None)
            return sample(local(parameter))  # it may be a copy
        place, count = parameter.data_ptr(), parameter.numel()
        known = self._views.get(index)
        if known is not None and known[0] == place and known[1] == count:
            return known[2]
        view = sample(local(parameter))
        self._views[index] = place, count, view
        return view


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
