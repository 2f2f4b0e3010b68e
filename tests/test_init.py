"""Public initializers: what they do to the signal, and what they leave alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.errors import UsageError
from gradlint.init import by_activation_, lsuv_, scale_residual_branches_


def deep(activation: type[nn.Module], depth: int = 20, width: int = 100) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def gain(layer: nn.Linear) -> float:
    return float(layer.weight.detach().std() * math.sqrt(layer.in_features))


def test_by_activation_gives_relu_kaiming_and_tanh_lecun() -> None:
    relu = by_activation_(deep(nn.ReLU), torch.randn(64, 100))
    tanh = by_activation_(deep(nn.Tanh), torch.randn(64, 100))

    # 1e4 draws: the standard error of a standard deviation is 0.7 %.
    assert gain(relu[0]) == pytest.approx(math.sqrt(2), rel=0.03)
    assert gain(relu[-1]) == pytest.approx(1, rel=0.3)
    assert gain(tanh[0]) == pytest.approx(1, rel=0.03)
    assert not relu[0].bias.any()


def test_by_activation_keeps_the_signal_over_twenty_layers() -> None:
    inputs = torch.randn(256, 100)
    model = deep(nn.ReLU)
    faded = model[:-1](inputs).square().mean().sqrt()

    by_activation_(model, inputs)

    kept = model[:-1](inputs).square().mean().sqrt()
    assert faded < 0.06
    assert 0.4 < kept < 2.5


def test_by_activation_sees_functional_activations() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(100, 100)
            self.second = nn.Linear(100, 100)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(functional.leaky_relu(self.first(x), 0.2))

    model = by_activation_(Net(), torch.randn(8, 100))

    assert gain(model.first) == pytest.approx(math.sqrt(2 / 1.04), rel=0.03)
    assert gain(model.second) == pytest.approx(1, rel=0.03)


def test_by_activation_leaves_a_branch_that_is_zero_on_purpose() -> None:
    model = deep(nn.ReLU, depth=2)
    nn.init.zeros_(model[-1].weight)

    by_activation_(model, torch.randn(8, 100))

    assert not model[-1].weight.any()


def test_lsuv_gives_every_layer_unit_variance() -> None:
    inputs = torch.randn(256, 100)
    model = lsuv_(deep(nn.Tanh, depth=8), inputs)

    for end in range(1, len(model), 2):
        variance = float(model[:end](inputs).detach().var(correction=0))
        assert variance == pytest.approx(1, abs=0.05)


def test_lsuv_leaves_running_statistics_and_random_state_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
    inputs = torch.randn(32, 8)
    before = model[1].running_mean.clone()
    torch.manual_seed(5)
    nn.init.orthogonal_(torch.empty(8, 8))
    nn.init.orthogonal_(torch.empty(1, 8))
    expected = torch.get_rng_state()
    torch.manual_seed(5)

    lsuv_(model, inputs)

    assert torch.equal(model[1].running_mean, before)
    assert torch.equal(torch.get_rng_state(), expected)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.relu(self.inner(x)))


def test_scaled_branches_keep_the_residual_stream_within_a_factor_of_depth() -> None:
    inputs = torch.randn(256, 64)
    model = by_activation_(nn.Sequential(*[Block() for _ in range(16)]), inputs)
    grown = model(inputs).std()
    inner, outer = gain(model[3].inner), gain(model[3].outer)

    scale_residual_branches_(model, inputs)

    assert grown > 50
    assert model(inputs).std() < 3
    assert gain(model[3].outer) == pytest.approx(outer / 4, rel=1e-5)
    assert gain(model[3].inner) == inner


def test_a_frozen_model_is_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match="depends on trainable parameters"):
        by_activation_(nn.Linear(3, 3).requires_grad_(False), torch.randn(2, 3))
