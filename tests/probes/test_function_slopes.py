"""What a custom function's backward tells of each of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from gradlint.probes.function_slopes import Made, function_slopes

Slopes = Mapping[str, Mapping[str, Any]] | None


def made(forward: Callable[..., Tensor], backward: Callable[..., Any]) -> type[Function]:
    """Return a function whose backward is `backward(gradient, *inputs)`."""

    class Own(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, *others: Any) -> Tensor:
            ctx.save_for_backward(x, *others)
            return forward(x, *others)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return backward(gradients[0], *ctx.saved_tensors)

    return Own


def slopes(function: type[Function], *args: Any, needs: set[int] | None = None) -> Slopes:
    wanted = range(len(args)) if needs is None else needs
    return function_slopes(Made(function, args, frozenset(wanted)))


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def soft(x: Tensor, level: Tensor) -> Tensor:
    return x.sign() * (x.abs() - level).clamp(min=0)


def of_soft(sign: int) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor, level: Tensor) -> Any:
        sloped = g * (x.abs() > level)
        return sloped, sign * (sloped * x.sign()).sum(0)

    return backward


def test_slopes_that_are_right_are_said_to_be() -> None:
    found = slopes(made(soft, of_soft(-1)), drawn(64, 8), torch.full((8,), 0.3))

    assert found is not None
    assert list(found) == ["x", "input 2"]
    for slope in found.values():
        assert slope["right"]
        assert slope["curved"]
        assert not slope["opposed"]
        assert slope["cosine"] == pytest.approx(1.0)


def test_the_opposite_for_one_input_is_said_to_be() -> None:
    found = slopes(made(soft, of_soft(1)), drawn(64, 8), torch.full((8,), 0.3))

    assert found is not None
    assert found["x"]["right"]
    assert found["input 2"]["opposed"]
    assert found["input 2"]["cosine"] == pytest.approx(-1.0)


class Scan(Function):
    """h[t] = a[t] h[t - 1] + b[t]; backward multiplies what it carries by `carried(a)`."""

    carried: Callable[[Tensor], Tensor]

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h, out = torch.zeros_like(b[:, 0]), []
        for t in range(b.shape[1]):
            h = a[:, t] * h + b[:, t]
            out.append(h)
        ctx.save_for_backward(a, torch.stack(out, 1))
        return torch.stack(out, 1)

    @classmethod
    def passed(cls, ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        a, out = ctx.saved_tensors
        of_a, of_b = torch.zeros_like(a), torch.zeros_like(a)
        carry = torch.zeros_like(g[:, 0])
        for t in reversed(range(a.shape[1])):
            of_b[:, t] = carry = g[:, t] + carry
            if t > 0:
                of_a[:, t] = carry * out[:, t - 1]
                carry = carry * cls.carried(a[:, t])
        return of_a, of_b


class RightScan(Scan):
    carried = staticmethod(lambda a: a)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return RightScan.passed(ctx, gradients[0])


class UndampedScan(Scan):
    carried = staticmethod(torch.ones_like)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return UndampedScan.passed(ctx, gradients[0])


class TruncatedScan(Scan):
    carried = staticmethod(torch.zeros_like)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return TruncatedScan.passed(ctx, gradients[0])


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        pytest.param(RightScan, 0.9999, 1.0001, id="right"),
        pytest.param(UndampedScan, 0.1, 0.5, id="forgets-its-decay"),
        pytest.param(TruncatedScan, 0.7, 0.95, id="drops-its-carry"),
    ],
)
def test_the_cosine_tells_how_far_backward_is_off(
    function: type[Function], low: float, high: float
) -> None:
    found = slopes(function, torch.sigmoid(drawn(16, 30, 8)), drawn(16, 30, 8).flip(0))

    assert found is not None
    assert low < found["a"]["cosine"] < high
    assert found["a"]["curved"]
    assert not found["b"]["curved"]


def of_lsq(g: Tensor, x: Tensor, step: Tensor) -> Any:
    v = x / step
    inside = (v > -4) & (v < 3)
    of_step = torch.where(inside, v.round() - v, v.clamp(-4, 3))
    return g * inside, (g * of_step).sum().reshape(step.shape)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        pytest.param(made(torch.round, lambda g, x: g), (drawn(64, 8),), id="rounding"),
        pytest.param(
            made(lambda x, s: (x / s).clamp(-4, 3).round() * s, of_lsq),
            (drawn(64, 8), torch.tensor([0.3])),
            id="learned-step-size",
        ),
        pytest.param(
            made(lambda x: x.clamp(0, 1) + 0.1 * x.round(), lambda g, x: g),
            (drawn(64, 64),),
            id="jumps-and-slopes",
        ),
        pytest.param(
            made(lambda x, s: x * s.round(), lambda g, x, s: (g * s.round(), (g * x).sum(0))),
            (drawn(64, 8), torch.full((8,), 1.2)),
            id="rounding-far-from-the-next",
        ),
        pytest.param(
            made(lambda x: x.float().exp().double(), lambda g, x: g * x.exp()),
            (drawn(64, 8),),
            id="one-precision",
        ),
        pytest.param(
            made(lambda x: x * (x >= x.topk(4).values[:, -1:]), lambda g, x: g),
            (drawn(640, 8),),
            id="top-k",
        ),
        pytest.param(
            made(lambda x, extra: 1 * x, lambda g, x, extra: (g, torch.ones_like(extra))),
            (drawn(64, 8), torch.tensor(0.3)),
            id="loss-added-by-backward",
        ),
        pytest.param(
            made(
                lambda x, w, other: torch.tanh(x @ w),
                lambda g, x, w, other: (
                    (g * (1 - torch.tanh(x @ w).square())) @ other,
                    x.t() @ (g * (1 - torch.tanh(x @ w).square())),
                    None,
                ),
            ),
            (drawn(64, 8), 0.3 * drawn(8, 8), drawn(8, 8).flip(0)),
            id="feedback-alignment",
        ),
        pytest.param(
            made(
                lambda x, average: x.exp().mean().log(),
                lambda g, x, average: (g * x.exp() / average / x.numel(), None),
            ),
            (drawn(64, 8), torch.tensor(2.0)),
            id="running-average",
        ),
        pytest.param(
            made(torch.relu, lambda g, x: g.clamp(min=0) * (x > 0)), (drawn(64, 8),), id="guided"
        ),
        pytest.param(
            made(torch.tanh, lambda g, x: g * (1 - torch.tanh(x).square()) + 0.1 * x.sign()),
            (drawn(64, 8),),
            id="penalty-added-by-backward",
        ),
        pytest.param(
            made(torch.tanh, lambda g, x: g * torch.rand_like(x)), (drawn(64, 8),), id="draws"
        ),
        pytest.param(
            made(lambda x: x + torch.randn_like(x), lambda g, x: g), (drawn(64, 8),), id="noise"
        ),
        pytest.param(
            made(lambda x: x.exp(), lambda g, x: g), (drawn(513, 512),), id="very-many-entries"
        ),
    ],
)
def test_what_is_meant_to_be_another_function_is_not_compared(
    function: type[Function], args: tuple[Any, ...]
) -> None:
    assert slopes(function, *args) is None


def of_adversary(weight: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """Return a backward that is right for the first input and reversed for the second."""

    def backward(g: Tensor, x: Tensor, y: Tensor) -> Any:
        of_x, of_y = weight(x, y)
        return g * of_x, -(g * of_y).sum(0)

    return backward


@pytest.mark.parametrize(
    ("forward", "weight"),
    [
        pytest.param(
            lambda x, y: (x + y).clamp(0, 1),
            lambda x, y: 2 * (((x + y) > 0) & ((x + y) < 1)).to(x).expand(2, *x.shape) / 2,
            id="shifts",
        ),
        pytest.param(
            lambda x, y: (x * y).clamp(0, 1),
            lambda x, y: (
                ((x * y > 0) & (x * y < 1)) * y,
                ((x * y > 0) & (x * y < 1)) * x,
            ),
            id="scales",
        ),
        pytest.param(
            lambda x, y: F.softplus(y) * x * x,
            lambda x, y: (F.softplus(y) * 2 * x, torch.sigmoid(y) * x * x),
            id="weighs",
        ),
        pytest.param(
            lambda x, y: x.exp() + y.square(),
            lambda x, y: (x.exp(), (2 * y).expand(x.shape)),
            id="adds",
        ),
    ],
)
def test_an_adversary_is_not_opposed(forward: Any, weight: Any) -> None:
    found = slopes(made(forward, of_adversary(weight)), drawn(64, 8), 0.1 + drawn(8).abs())

    assert found is not None
    assert found["x"]["right"]
    assert found["input 2"]["cosine"] == pytest.approx(-1.0)
    assert not found["input 2"]["opposed"]


def test_a_loss_s_player_is_not_opposed() -> None:
    function = made(lambda x, level: soft(x, level).sum(), of_soft(1))
    found = slopes(function, drawn(64, 8), torch.full((8,), 0.3))

    assert found is not None
    assert found["input 2"]["cosine"] == pytest.approx(-1.0)
    assert not found["input 2"]["opposed"]


def test_straight_lines_are_not_curved() -> None:
    found = slopes(made(lambda x, w: x @ w, lambda g, x, w: (-g @ w.t(), x.t() @ g)),
                   drawn(64, 8), drawn(8, 8))  # fmt: skip

    assert found is not None
    assert not any(slope["curved"] for slope in found.values())


def test_only_inputs_that_need_a_gradient_and_get_one_are_told_of() -> None:
    function = made(lambda x, y, z: x.exp() * y * z, lambda g, x, y, z: (
        g * x.exp() * y * z, g * x.exp() * z, None
    ))  # fmt: skip
    found = slopes(function, drawn(64, 8), drawn(64, 8), drawn(64, 8), needs={0, 2})

    assert found is not None
    assert list(found) == ["x"]


def test_inputs_have_the_names_forward_gives_them_without_a_context_too() -> None:
    class Late(Function):
        @staticmethod
        def forward(first: Tensor, second: Tensor) -> Tensor:
            return first.exp() * second

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            first, second = ctx.saved_tensors
            return gradients[0] * first.exp() * second, gradients[0] * first.exp()

    found = slopes(Late, drawn(64, 8), drawn(64, 8))

    assert found is not None
    assert list(found) == ["first", "second"]


def test_arguments_stay_what_they_are() -> None:
    class Inside(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, total: Tensor, calls: Tensor) -> Tensor:
            total += x.sum()
            calls += 1
            ctx.save_for_backward(x)
            return x.exp()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0] * ctx.saved_tensors[0].exp(), None, None

    total, calls = torch.zeros(()), torch.tensor(0)
    found = slopes(Inside, drawn(64, 8), total, calls, needs={0})

    assert found is not None
    assert found["x"]["right"]
    assert (total.item(), calls.item()) == (0.0, 0)
