"""Does a custom autograd.Function slope where its backward says so?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

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
    return None if found is None else found[function.__name__]["entries"].get("x")


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
        pytest.param(lambda x: x - x.mean(0), ones, id="columns-depend-on-themselves"),
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


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def slope_of_swish(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))


@pytest.mark.parametrize(
    ("forward", "slope", "least"),
    [
        pytest.param(swish, lambda x: x * torch.sigmoid(x) * torch.sigmoid(-x), 0.3, id="a-term"),
        pytest.param(torch.tanh, lambda x: 1 - x.square(), 0.2, id="input-for-output"),
        pytest.param(torch.sigmoid, lambda x: x * (1 - x), 0.5, id="input-for-output-of-sigmoid"),
    ],
)
def test_signs_of_both_kinds_where_forward_rises_are_counted(
    forward: Any, slope: Any, least: float
) -> None:
    found = probed(made(forward, slope))

    assert found is not None
    assert found["agreeing"] > 50
    assert found["opposite"] > least * (found["agreeing"] + found["opposite"])
    assert found["along"] < 0.75


@pytest.mark.parametrize(
    ("forward", "slope"),
    [
        pytest.param(swish, slope_of_swish, id="right"),
        pytest.param(swish, lambda x: 3 * slope_of_swish(x), id="scaled"),
        pytest.param(swish, lambda x: -slope_of_swish(x), id="reversed"),
        pytest.param(swish, ones, id="identity"),
        pytest.param(swish, lambda x: torch.sigmoid(x), id="gate-held"),
        pytest.param(
            F.gelu,
            lambda x: 1.098 * (x > -0.00118) - 0.0492 * (x > -3.186) - 0.0487 * (x > 3.191),
            id="three-steps-for-gelu",
        ),
        pytest.param(torch.relu, slope_of_swish, id="smooth-for-relu"),
        pytest.param(torch.tanh, lambda x: 1.1 - torch.tanh(x).square(), id="leaky-tanh"),
        pytest.param(torch.abs, ones, id="identity-for-abs"),
        pytest.param(torch.square, ones, id="identity-for-square"),
        pytest.param(
            torch.tanh,
            lambda x: (1 - torch.tanh(x).square()) * torch.linspace(1, -1, 16).sign()[:, None],
            id="half-of-the-samples-reversed",
        ),
    ],
)
def test_one_sign_where_forward_has_one_is_not_opposite(forward: Any, slope: Any) -> None:
    found = probed(made(forward, slope))

    assert found is not None
    assert found["opposite"] == 0


class Learned(Function):
    """Soft thresholding; backward has the condition of its first input the wrong way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, level: Tensor) -> Tensor:
        ctx.save_for_backward(x, level)
        return x.sign() * (x.abs() - level).clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, level = ctx.saved_tensors
        sloped = gradients[0] * (x.abs() > level)
        return gradients[0] - sloped, -(sloped * x.sign()).sum(0)


def gate(x: Tensor) -> Tensor:
    return x.sigmoid()


def rest(x: Tensor) -> Tensor:
    return x * x.sigmoid() * (1 - x.sigmoid())


def mish_gate(x: Tensor) -> Tensor:
    return F.softplus(x).tanh()


def mish_rest(x: Tensor) -> Tensor:
    return x * x.sigmoid() * (1 - mish_gate(x) ** 2)


def gelu_slope(x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(F.gelu))(x.flatten()).reshape(x.shape)


@pytest.mark.parametrize(
    ("forward", "slope", "turned"),
    [
        pytest.param(F.silu, lambda x: gate(x) - rest(x), True, id="silu"),
        pytest.param(F.silu, lambda x: rest(x) - gate(x), True, id="silu-the-other-term"),
        pytest.param(F.mish, lambda x: mish_gate(x) - mish_rest(x), True, id="mish"),
        pytest.param(F.gelu, lambda x: 2 * F.gelu(x) / x - gelu_slope(x), True, id="gelu"),
        pytest.param(lambda x: x * x.sin(), lambda x: x.sin() - x * x.cos(), True, id="both-signs"),
        pytest.param(F.silu, lambda x: gate(x) + rest(x), False, id="right"),
        pytest.param(F.silu, lambda x: -gate(x) - rest(x), False, id="reversed"),
        pytest.param(F.silu, lambda x: 0.5 * (gate(x) - rest(x)), False, id="another-size"),
        pytest.param(F.silu, gate, False, id="a-term-left-out"),
        pytest.param(F.silu, ones, False, id="identity"),
        pytest.param(F.gelu, lambda x: gate(1.7 * x) + 1.7 * x * rest(1.7 * x), False, id="approx"),
        pytest.param(torch.square, torch.zeros_like, False, id="nothing-passed"),
        pytest.param(F.tanhshrink, lambda x: x.tanh() ** 2, False, id="right-tanhshrink"),
    ],
)
def test_a_term_of_the_product_rule_with_the_wrong_sign_is_told(
    forward: Any, slope: Any, turned: bool
) -> None:
    found = probed(made(forward, slope))

    assert found is not None
    assert found["turned"] is turned


def test_entries_of_zero_hide_no_turned_term() -> None:
    class Halved(Custom):
        def forward(self, x: Tensor) -> Any:
            return self.function.apply(self.fc(x) * (x[:, :1] > 0))

    function = made(F.silu, lambda x: gate(x) - rest(x))
    found = custom_derivatives(Halved(function), run, torch.randn(16, 4))

    assert found is not None
    assert found["Made"]["entries"]["x"]["turned"]


def test_of_a_power_both_signs_are_multiples_of_the_slope() -> None:
    found = probed(made(lambda x: x**3, lambda x: -(x**2)))

    assert found is not None
    assert found["turned"]
    assert found["along"] == pytest.approx(-1)


def test_an_input_of_several_is_looked_at_entry_by_entry() -> None:
    found = probed(Learned, torch.full((32,), 0.5))

    assert found is not None
    assert found["against"] == found["sloped"] > 100


def test_what_is_a_step_in_one_input_is_not_looked_at_in_another() -> None:
    class Rounds(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.relu() * scale.round()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (x,) = ctx.saved_tensors
            return gradients[0] * (x < 0), gradients[0].sum(0)

    assert probed(Rounds, torch.full((32,), 1.2)) is None


class Level(nn.Module):
    """Learns a threshold; below zero the function jumps."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.full((4,), level))

    def forward(self, x: Tensor) -> Any:
        function: Any = Learned
        return function.apply(x, self.level)


def test_what_a_trained_parameter_hides_is_seen_at_a_fresh_one() -> None:
    x = torch.randn(64, 4)

    assert custom_derivatives(Level(-0.5), run, x) is None
    found = custom_derivatives(Level(-0.5), run, x, lambda: Level(0.5))
    assert found is not None
    assert found["Learned"]["slopes"]["level"]["right"]


def test_a_fresh_model_is_not_asked_where_the_trained_one_answers() -> None:
    def never() -> nn.Module:
        raise AssertionError

    assert custom_derivatives(Level(0.5), run, torch.randn(64, 4), never) is not None


def test_an_input_that_needs_no_gradient_is_not_looked_at() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Any:
            function: Any = made(clamp, lambda x: 1 - inside(x))
            return function.apply(x)

    assert custom_derivatives(Bare(), run, torch.randn(64, 4)) is None


def test_the_first_call_that_needs_a_gradient_is_looked_at() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            function: Any = made(clamp, inside)
            return function.apply(self.fc(function.apply(x)))

    assert custom_derivatives(Twice(), run, torch.randn(64, 4)) is not None


def test_functions_are_called_as_before_afterwards() -> None:
    before = Function.__dict__["apply"]

    probed(made(clamp, inside))

    assert Function.__dict__["apply"] is before


def test_a_model_without_functions_of_its_own_has_nothing_to_compare() -> None:
    assert custom_derivatives(nn.Linear(4, 2), run, torch.randn(8, 4)) is None
