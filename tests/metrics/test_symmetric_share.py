"""symmetric_share against a comparison of every pair of units."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gradlint.errors import MetricError
from gradlint.metrics.symmetric_share import symmetric_share
from tests.strategies import every_dtype, strided


def share_of(weight: Tensor, gradient: Tensor) -> float:
    """Pair by pair: does a unit have a twin?"""
    units = range(len(weight))
    twins = [
        any(u != v and weight[u].equal(weight[v]) and gradient[u].equal(gradient[v]) for v in units)
        for u in units
    ]
    return sum(twins) / len(twins)


@st.composite
def units(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A weight and a gradient of few different rows, so that twins are common."""
    count, width = draw(st.integers(2, 8)), draw(st.integers(1, 5))
    kinds = torch.randn(3, 2 * width, generator=torch.Generator().manual_seed(count))
    kinds[0] = 0
    picked = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    rows = kinds[torch.tensor(picked)]
    return rows[:, :width].clone(), rows[:, width:].clone()


@given(units())
def test_is_the_share_of_units_with_a_twin(pair: tuple[Tensor, Tensor]) -> None:
    weight, gradient = pair

    assert float(symmetric_share(weight, gradient)) == pytest.approx(share_of(weight, gradient))


@given(units(), st.randoms(use_true_random=False))
def test_sees_neither_the_order_of_units_nor_the_layout(
    pair: tuple[Tensor, Tensor], random: object
) -> None:
    weight, gradient = pair
    order = list(range(len(weight)))
    random.shuffle(order)

    share = symmetric_share(weight, gradient)

    assert symmetric_share(weight[order], gradient[order]) == share
    assert symmetric_share(strided(weight), strided(gradient)) == share


@given(units())
def test_all_units_have_a_twin_in_a_doubled_layer(pair: tuple[Tensor, Tensor]) -> None:
    weight, gradient = (torch.cat([t, t]) for t in pair)

    assert float(symmetric_share(weight, gradient)) == 1.0


@every_dtype
def test_random_units_have_no_twin(dtype: torch.dtype) -> None:
    weight, gradient = torch.randn(2, 16, 32).to(dtype)

    share = symmetric_share(weight, gradient)

    assert share.dtype == torch.float64
    assert float(share) == 0.0


def test_one_bit_tells_units_apart() -> None:
    weight = torch.ones(3, 4)
    weight[0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))

    assert float(symmetric_share(weight, torch.zeros(3, 4))) == pytest.approx(2 / 3)


def test_a_layer_of_constants_is_wholly_symmetric() -> None:
    layer, head = nn.Linear(3, 4), nn.Linear(4, 2)
    for parameter in (*layer.parameters(), *head.parameters()):
        nn.init.constant_(parameter, 0.3)
    head(layer(torch.randn(5, 3)).tanh()).square().sum().backward()
    assert layer.weight.grad is not None

    assert float(symmetric_share(layer.weight, layer.weight.grad)) == 1.0


def test_a_zero_initialized_head_is_not_symmetric() -> None:
    head = nn.Linear(4, 3)
    nn.init.zeros_(head.weight)
    loss = nn.functional.cross_entropy(head(torch.randn(9, 4)), torch.arange(9) % 3)
    loss.backward()
    assert head.weight.grad is not None

    assert float(symmetric_share(head.weight, head.weight.grad)) == 0.0


def test_nan_equals_nothing() -> None:
    weight = torch.full((3, 2), torch.nan)

    assert float(symmetric_share(weight, weight)) == 0.0


def test_reads_convolutions_and_complex_weights() -> None:
    kernel = torch.randn(4, 3, 2, 2)
    kernel[1] = kernel[3]
    rotation = torch.tensor([[1 + 1j], [1 - 1j], [1 + 1j]])

    assert float(symmetric_share(kernel, torch.zeros_like(kernel))) == 0.5
    assert float(symmetric_share(rotation, torch.zeros_like(rotation))) == pytest.approx(2 / 3)


def test_refuses_a_vector() -> None:
    with pytest.raises(MetricError, match=r"symmetric_share needs shape \(U, \*\), got \(3,\)"):
        symmetric_share(torch.zeros(3), torch.zeros(3))
