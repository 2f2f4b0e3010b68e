"""A loop of forty steps, which is looked at in full twice in its later half, is enough."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.watching import Watcher


class Clamped(nn.Module):
    """Two hidden layers, each in front of a clamp, which is no module."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 64)
        self.head = nn.Linear(64, 4)
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            x = layer(x).clamp(-self.bound, self.bound)
        return self.head(x)


@pytest.mark.parametrize(
    ("bound", "steps", "flagged"),
    [
        pytest.param(0.003, 40, True, id="saturated"),
        pytest.param(0.003, 12, False, id="too-few-steps"),
        pytest.param(2.0, 40, False, id="wide-enough"),
    ],
)
def test_a_clamp_that_lets_nothing_through_is_found(
    bound: float, steps: int, flagged: bool
) -> None:
    torch.manual_seed(0)
    model = Clamped(bound)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Watcher(model) as watcher:
        for _ in range(steps):
            inputs = torch.randn(64, 16)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), inputs[:, :4].argmax(1)).backward()
            optimizer.step()

    assert ("GL202" in {f.code for f in watcher.report.findings}) is flagged
