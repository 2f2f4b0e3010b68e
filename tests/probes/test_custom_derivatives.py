"""Does a custom autograd.Function slope where its backward says so?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from gradlint.probes.custom_derivatives import custom_derivatives


class Custom(nn.Module):
    """Applies a function to what a layer returns."""

    def __init__(self, function: Any, *others: Any) -> None:
        super().__init__()
        self.fc, self.function, self.others = nn.Linear(4, 32), function, others

    def forward(self, x: Tensor) -> Any:
        return self.function.apply(2 * self.fc(x), *self.others)


def run(model: nn.Module, batch: Any) -> Any:
    torch.manual_seed(0)
    return model(batch)


def probed(function: Any, *others: Any) -> Mapping[str, Any] | None:
    torch.manual_seed(0)
    model = Custom(function, *others)
    found = custom_derivatives(model, run, torch.randn(16, 4))
    assert all(p.grad is None for p in model.parameters())
    return None if found is None else found[function.__name__]


def made(forward: Any, slope: Any) -> type[Function]:
    """Return a function of one tensor whose backward multiplies by `slope(x)`."""

    class Made(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0] * slope(ctx.saved_tensors[0])

    return Made


def clamp(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def inside(x: Tensor) -> Tensor:
    return (x.abs() <= 1).to(x.dtype)


def ones(x: Tensor) -> Tensor:
    return torch.ones_like(x)


def test_an_inverted_condition_is_against_all_entries() -> None:
    found = probed(made(clamp, lambda x: 1 - inside(x)))

    assert found is not None
    assert found["against"] == found["sloped"] > 100
    assert found["flat"] > 100
    assert found["sloped"] + found["flat"] == 16 * 32


@pytest.mark.parametrize(
    ("forward", "slope"),
    [
        pytest.param(clamp, inside, id="correct"),
        pytest.param(clamp, ones, id="clamp-straight-through"),
        pytest.param(clamp, lambda x: -inside(x), id="reversed"),
        pytest.param(clamp, lambda x: 7 * inside(x), id="scaled"),
        pytest.param(torch.relu, lambda x: torch.where(x > 0, 1.0, 0.1), id="leaky-backward"),
        pytest.param(
            lambda x: x * torch.sigmoid(x),
            lambda x: torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x))), id="swish",
        ),
        pytest.param(torch.exp, lambda x: torch.exp(x.clamp(-15, 15)), id="truncated-exp"),
        pytest.param(torch.sqrt, lambda x: 0.5 / x.clamp(min=0.1).sqrt(), id="not-a-number"),
    ],
)  # fmt: skip
def test_a_backward_that_agrees_where_forward_slopes_is_not_against(
    forward: Any, slope: Any
) -> None:
    found = probed(made(forward, slope))

    assert found is None or found["against"] <= 0.05 * found["sloped"]


@pytest.mark.parametrize(
    ("forward", "slope"),
    [
        pytest.param(torch.round, ones, id="rounding-straight-through"),
        pytest.param(torch.sign, inside, id="sign"),
        pytest.param(lambda x: (x > 0).to(x.dtype), lambda x: 1 / (1 + x.abs()), id="spike"),
        pytest.param(lambda x: 1 * x, lambda x: -ones(x), id="reversal"),
        pytest.param(lambda x: 1 * x, inside, id="identity-that-stops-some"),
        pytest.param(lambda x: x.softmax(-1), ones, id="entries-depend-on-each-other"),
        pytest.param(lambda x: x + torch.randn_like(x), ones, id="random"),
        pytest.param(lambda x: x.square().sum(), ones, id="another-shape"),
        pytest.param(lambda x: x.float().relu() @ torch.ones(32, 32), ones, id="one-precision"),
    ],
)
def test_steps_lines_and_what_is_not_entry_by_entry_are_not_compared(
    forward: Any, slope: Any
) -> None:
    assert probed(made(forward, slope)) is None


def test_a_backward_that_clips_is_not_compared() -> None:
    class Clips(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.relu()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0].clamp(-0.1, 0.1)

    assert probed(Clips) is None


def test_other_arguments_stay_what_they_are() -> None:
    class Slope(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, least: float) -> Tensor:
            ctx.save_for_backward(x)
            ctx.least = least
            return x.clamp(min=least)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (x,) = ctx.saved_tensors
            return gradients[0] * (x < ctx.least), None

    found = probed(Slope, 0.5)

    assert found is not None
    assert found["against"] == found["sloped"]


def test_a_function_of_two_tensors_is_not_compared() -> None:
    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
            return (x + y).relu()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0], None

    assert probed(Two, torch.ones(32)) is None


def test_functions_are_called_as_before_afterwards() -> None:
    before = Function.__dict__["apply"]

    probed(made(clamp, inside))

    assert Function.__dict__["apply"] is before


def test_a_model_without_functions_of_its_own_has_nothing_to_compare() -> None:
    assert custom_derivatives(nn.Linear(4, 2), run, torch.randn(8, 4)) is None
