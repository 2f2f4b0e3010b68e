"""An activation's output, out of its node, against what the activation returned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.engine import Observer
from gradlint.graph import ACTIVATIONS
from gradlint.hooks.saved import activation_of
from tests.observing import observed, value

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu-in-place": F.relu_, "clamp": lambda x: x.clamp(min=0), "relu6": F.relu6,
    "leaky": lambda x: F.leaky_relu(x, 0.2), "leaky-in-place": lambda x: F.leaky_relu_(x, 0.2),
    "elu": lambda x: F.elu(x, 0.5), "elu-in-place": F.elu_, "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.3), "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "mish": F.mish,
    "softplus": lambda x: F.softplus(x, 2.0, 1.0), "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid, "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.25),
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "logsigmoid": F.logsigmoid, "glu": F.glu,
    "glu-first": lambda x: F.glu(x, 0), "prelu": lambda x: F.prelu(x, torch.tensor([0.3])),
}  # fmt: skip


class Written(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.function = nn.Linear(6, 6), function

    def forward(self, x: Tensor) -> Tensor:
        self.activation = self.function(self.fc(x))
        return self.activation


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functional_activation_is_measured_as_what_it_returned(name: str) -> None:
    model = Written(FUNCTIONS[name])

    observer = observed(model, lambda m: m(3 * torch.randn(4, 6)).sum())

    (op,) = [op for op in observer.graph if op.kind in ACTIVATIONS]
    activation = model.activation.detach().double()
    for metric, expected in [
        ("activation_mean", activation.mean()),
        ("activation_std", activation.std(correction=0)),
        ("activation_rms", activation.square().mean().sqrt()),
        ("activation_abs_max", activation.abs().max()),
        ("activation_zero_share", (activation == 0).double().mean()),
    ]:
        # The same kernel on the same entries, on other memory: float32 rounding at most.
        assert value(observer, metric, op.site) == pytest.approx(
            float(expected), rel=1e-5, abs=1e-7
        )


def test_an_activation_overwritten_since_is_not_guessed() -> None:
    model = Written(lambda x: torch.sigmoid(x) + F.relu(x).mul_(2))

    with Observer(model) as observer, observer.step(0):
        observer.forward_done(model(torch.randn(4, 6)).sum())  # its backward would raise
        observer.read()

    assert {o.site.path for o in observer.observations if ":" in o.site.path} == {"fc:sigmoid"}


def test_what_cannot_be_computed_again_is_not_guessed() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.RReLU())
    observer = observed(model, lambda m: m(torch.randn(4, 6)).sum())

    class Nothing:
        def saved(self, op: object, name: str) -> None:
            return None

    assert activation_of(Nothing(), observer.graph.by_id[1]) is None
