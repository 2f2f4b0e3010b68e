"""Which models mix the samples of a batch, and which only compare them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.probes.batch_leakage import batch_leakage

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.first(x)))


def probed(between: Callable[[Tensor], Tensor], inputs: Any = X) -> Any:
    def run(model: nn.Module, given: Any) -> Any:
        torch.manual_seed(0)
        return model(given)

    return batch_leakage(Net(between), run, inputs)


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(torch.relu, id="plain"),
        pytest.param(nn.BatchNorm1d(6), id="batchnorm"),
        pytest.param(nn.Dropout(0.5), id="dropout"),
        pytest.param(lambda x: x + torch.randn_like(x), id="noise"),
        pytest.param(lambda x: x.view(6, 12).view(12, 6), id="views-that-cancel"),
    ],
)
def test_samples_that_keep_to_themselves_do_not_leak(between: Callable[[Tensor], Tensor]) -> None:
    assert probed(between) == {"leak": 0.0, "order": 0.0, "rows": 12, "module": None}


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda x: x.t().reshape(12, 6), id="transposed-and-reshaped"),
        pytest.param(lambda x: x.cumsum(0), id="running-sum"),
        pytest.param(lambda x: x.roll(1, 0), id="neighbor"),
    ],
)
def test_mixed_rows_leak_and_depend_on_their_order(between: Callable[[Tensor], Tensor]) -> None:
    found = probed(between)

    assert found["leak"] > 1e-3
    assert found["order"] > 1e-3
    assert found["module"] == "head"


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda x: (x - x.mean(0)) / x.std(0), id="statistics-of-the-batch"),
        pytest.param(lambda x: (x @ x.t()).softmax(1) @ x, id="attention-over-samples"),
    ],
)
def test_comparisons_leak_and_do_not_depend_on_the_order(
    between: Callable[[Tensor], Tensor],
) -> None:
    found = probed(between)

    assert found["leak"] > 1e-3
    assert found["order"] < 1e-5


def test_what_cannot_be_told_is_none() -> None:
    assert probed(torch.relu, X[:3]) is None
    calls: list[int] = []
    assert probed(lambda x: (calls.append(1), x * len(calls))[1]) is None
    assert probed(lambda x: x - x.mean(0) + torch.randn_like(x)) is None


def test_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    batch_leakage(model, lambda m, x: m(x), X)

    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
