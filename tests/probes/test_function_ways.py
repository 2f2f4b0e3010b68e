"""Which way a custom function's backward sends gradients where forward is linear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from gradlint.probes.custom_derivatives import _compared
from gradlint.probes.function_slopes import Made

N = 32


def random(*shape: int, share: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=generator) < share
    return torch.randn(shape, generator=generator, dtype=torch.float64) * kept


EDGES = (random(N, N, share=0.1) != 0).double()
MEAN = EDGES / EDGES.sum(1, keepdim=True).clamp(min=1)
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(0))
GROUPS = torch.kron(torch.eye(N // 4), torch.ones(4, 4) / 4).double()
SQUARE = random(N, N)
SPARSE = random(N, N, share=0.1, seed=1)
OTHER = random(N, N, share=0.1, seed=2)


def by(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x @ matrix


def blurred(x: Tensor) -> Tensor:
    return F.avg_pool1d(x[:, None], 3, 1, 1)[:, 0]


def ways(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
) -> Mapping[str, Any] | None:
    class Own(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return forward(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return backward(gradients[0])

    found = _compared(Made(Own, (random(4, N).float(),), frozenset({0})))["ways"]
    return found.get("x")


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        pytest.param(by(MEAN.T), by(MEAN.T), id="edges"),
        pytest.param(by(MEAN.T + torch.eye(N)), by(MEAN.T + torch.eye(N)), id="edges-and-loops"),
        pytest.param(by(MEAN.T), lambda g: g / 3 @ EDGES.T, id="edges-of-other-weights"),
        pytest.param(lambda x: x[:, ORDER], lambda g: g[:, ORDER], id="permutation"),
        pytest.param(lambda x: x.roll(1, 1), lambda g: g.roll(1, 1), id="roll"),
        pytest.param(lambda x: x.roll(1, 0), lambda g: g.roll(1, 0), id="roll-of-samples"),
        pytest.param(lambda x: x.cumsum(1), lambda g: g.cumsum(1), id="running-sum"),
    ],
)
def test_gradients_that_are_sent_on_are_told(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
) -> None:
    found = ways(forward, backward)

    assert found is not None
    assert found["pairs"] >= 16
    assert 2 * min(found["missed"], found["onward"]) > found["pairs"]


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        pytest.param(lambda x: x * 1, blurred, id="gradients-are-blurred"),
        pytest.param(blurred, lambda g: g * 1, id="the-identity-for-a-blur"),
        pytest.param(by(GROUPS), lambda g: g * 1, id="the-identity-for-means-of-groups"),
        pytest.param(by(MEAN.T + torch.eye(N)), lambda g: g * 1, id="neighbors-left-out"),
        pytest.param(by(SQUARE), by(random(N, N, seed=3)), id="feedback"),
        pytest.param(by(SPARSE), by(OTHER), id="sparse-feedback"),
        pytest.param(by(SPARSE), by(SPARSE.T.sign()), id="signs-of-the-weights"),
        pytest.param(lambda x: x[:, ORDER], lambda g: -g[:, ORDER.argsort()], id="reversal"),
        pytest.param(lambda x: x * 1, lambda g: g * 0.1, id="scaling"),
        pytest.param(lambda x: x * 1, torch.zeros_like, id="stop"),
    ],
)
def test_backwards_that_are_another_function_on_purpose_are_not(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
) -> None:
    found = ways(forward, backward)

    assert found is None or not found["itself"]
    assert found is None or 4 * min(found["missed"], found["onward"]) < found["pairs"]


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        pytest.param(by(MEAN.T), by(MEAN), id="edges"),
        pytest.param(lambda x: x[:, ORDER], lambda g: g[:, ORDER.argsort()], id="permutation"),
        pytest.param(by(SPARSE + SPARSE.T), by(SPARSE + SPARSE.T), id="symmetric"),
        pytest.param(
            lambda x: x.cumsum(1), lambda g: g.flip(1).cumsum(1).flip(1), id="running-sum"
        ),
    ],
)
def test_the_transpose_is_not_looked_at(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
) -> None:
    assert ways(forward, backward) is None


def test_a_forward_in_the_place_of_its_transpose_is_told() -> None:
    found = ways(by(SQUARE), by(SQUARE))

    assert found is not None
    assert found["itself"]
    assert not found["missed"]


def test_what_is_curved_is_not_looked_at() -> None:
    assert ways(lambda x: (x @ MEAN.T).tanh(), by(MEAN.T)) is None


def test_another_shape_is_not_looked_at() -> None:
    assert ways(by(random(N, 20)), by(random(20, N, seed=3))) is None


def test_entries_that_move_nothing_make_no_pairs() -> None:
    found = ways(lambda x: x.roll(1, 1) * (torch.arange(N) < 8), lambda g: g.roll(1, 1))

    assert found is not None
    assert 0 < found["pairs"] < 16
