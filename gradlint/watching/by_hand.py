"""ByHand: whether parameters changed after a backward that no optimizer waited for."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import nn

_SAMPLE = 256


class ByHand:
    """Parameters as they were when a backward ended.

    Versions tell of every change but one through ``.data``; for that a few entries are
    compared. On a device other than the CPU that waits for it, so there only versions count.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        trained = [p for p in parameters if p.requires_grad and p.grad is not None]
        self._versions = [(weakref.ref(p), p._version) for p in trained]
        self._samples = [
            (weakref.ref(p), p.detach().reshape(-1)[:_SAMPLE].clone())
            for p in trained[:16] + trained[-4:]
            if p.device.type == "cpu"
        ]

    def changed(self) -> bool:
        """Whether any of them is another now."""
        for ref, version in self._versions:
            parameter = ref()
            if parameter is not None and parameter._version != version:
                return True
        for ref, sample in self._samples:
            parameter = ref()
            if parameter is None:
                continue
            now = parameter.detach().reshape(-1)[:_SAMPLE]
            if now.shape == sample.shape and not torch.equal(now, sample):
                return True
        return False
