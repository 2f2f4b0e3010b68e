"""Are a few units of a layer far larger than the rest?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.probes.unit_sizes import unit_sizes

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


def run(model: nn.Module, batch: Tensor) -> Any:
    return model(batch)


def model(factor: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(8, 32)
    with torch.no_grad():
        first.weight[5].mul_(factor)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(32, 32))


def test_the_ratio_is_that_of_root_mean_squares() -> None:
    net = model(1e4)
    sizes = net[0](X).detach().double().square().mean(dim=0).sqrt()

    found = unit_sizes(net, run, [X])

    assert found is not None
    assert list(found) == ["0"]  # the last layer is left out
    assert found["0"]["ratio"] == pytest.approx(float(sizes.max() / sizes.median()))
    assert found["0"]["large"] == 1
    assert found["0"]["units"] == 32


def test_units_of_torchs_initialization_are_alike() -> None:
    found = unit_sizes(model(), run, [X])

    assert found is not None
    assert found["0"]["ratio"] < 3


def test_channels_of_a_convolution_are_its_units() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(1, 16, 3)
    with torch.no_grad():
        first.weight[2].mul_(1e4)

    found = unit_sizes(nn.Sequential(first, nn.Conv2d(16, 16, 3)), run, [torch.randn(4, 1, 20, 20)])

    assert found is not None
    assert found["0"]["units"] == 16
    assert found["0"]["ratio"] > 1e3


def test_narrow_layers_and_units_of_zeros_have_no_rest() -> None:
    first = nn.Linear(8, 32)
    nn.init.zeros_(first.weight)
    nn.init.zeros_(first.bias)
    dead = nn.Sequential(first, nn.Linear(32, 2))

    assert unit_sizes(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), run, [X]) is None
    assert unit_sizes(dead, run, [X]) is None
