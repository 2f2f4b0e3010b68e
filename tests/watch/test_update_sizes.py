"""How far a loop's steps move weights whose size says little of what they make."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed


class Sine(nn.Module):
    """A layer of a SIREN: weights of a thirtieth of the usual size, behind a factor of 30."""

    def __init__(self, n_in: int, *, first: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, 32)
        nn.init.uniform_(self.linear.weight, -1, 1)
        self.linear.weight.data *= 1 / n_in if first else math.sqrt(6 / n_in) / 30

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * self.linear(x))


@BOTH
@pytest.mark.parametrize(("rate", "flagged"), [(0.05, True), (1e-3, False), (1e-4, False)])
def test_weights_before_a_factor_are_judged_by_their_product(
    rate: float, flagged: bool, every: Any
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Sine(1, first=True), Sine(32), Sine(32), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), rate)
    t = torch.linspace(-1, 1, 256)[:, None]
    signal = 0.5 * torch.sin(18 * t) + 0.25 * torch.sign(t)
    with Watcher(net, every=every) as watcher:
        for _ in range(60):
            optimizer.zero_grad()
            (net(t) - signal).square().mean().backward()
            optimizer.step()
    unfailed(watcher)

    assert ("GL401" in {f.code for f in watcher.report.findings}) is flagged
