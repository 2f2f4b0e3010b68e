"""Do all terms of a composite loss move the weights they share?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.probes.loss_terms import loss_terms

X = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(0))


class TwoHeads(nn.Module):
    """A body that two heads share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.one, self.other = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.one(h), self.other(h)


Loss = Callable[..., Any]


def probed(loss: Loss, model: nn.Module | None = None) -> Any:
    def run(model: nn.Module, x: Tensor) -> Any:
        return loss(*model(x), x), None, None

    return loss_terms(model or TwoHeads(), run, list(X))


def first(a: Tensor, x: Tensor) -> Tensor:
    return F.mse_loss(a, x[:, :1])


def second(b: Tensor, x: Tensor) -> Tensor:
    return F.l1_loss(b, x[:, 1:2])


def test_the_ratio_is_that_of_the_gradients_on_what_they_share() -> None:
    model = TwoHeads()
    ratios = []
    for x in X:
        a, b = model(x)
        shared = list(model.body.parameters())
        ours = torch.autograd.grad(first(a, x), shared, retain_graph=True)
        theirs = torch.autograd.grad(second(b, x), shared)
        norms = [torch.cat([g.flatten() for g in grads]).norm() for grads in (ours, theirs)]
        ratios.append(float(10 * norms[0] / norms[1]))

    found = probed(lambda a, b, x: 10 * first(a, x) + second(b, x), model)

    # The median of two in decades is their geometric mean.
    assert found["ratio"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5, rel=1e-4)
    assert (found["large"], found["small"]) == ("term 1 (mse)", "term 2 (mean)")
    assert found["factor"] == pytest.approx(0.1)
    assert found["terms"] == 2
    assert found["alone"] is None


def test_a_term_that_is_drowned_falls_only_alone() -> None:
    found = probed(lambda a, b, x: F.mse_loss(a, 1e5 + 1e4 * x[:, :1]) + second(b, x))

    assert found["ratio"] > 1e4
    assert found["factor"] == 1
    assert found["alone"] > 0.05
    assert found["together"] < found["alone"] / 2


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda a, b, x: (first(a, x) + second(b, x)) / 4, id="divided"),
        pytest.param(lambda a, b, x: torch.stack([first(a, x), second(b, x)]).sum(), id="stacked"),
        pytest.param(lambda a, b, x: sum([first(a, x), second(b, x)]), id="summed"),
        pytest.param(lambda a, b, x: second(b, x) - -first(a, x), id="subtracted"),
    ],
)
def test_terms_are_found_however_they_are_added(loss: Loss) -> None:
    found = probed(loss)

    assert found["terms"] == 2
    assert found["factor"] == pytest.approx(1)
    assert found["ratio"] < 20


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda a, b, x: first(a, x), id="one-term"),
        pytest.param(lambda a, b, x: (a + b - x[:, :1]).square().mean(), id="a-sum-of-tensors"),
        pytest.param(lambda a, b, x: first(a, x) + 0.0 * second(b, x), id="warm-up-from-zero"),
        pytest.param(
            lambda a, b, x: first(a, x) + second(x.sum(dim=1, keepdim=True), x), id="a-constant"
        ),
    ],
)
def test_where_no_two_terms_pull_it_says_nothing(loss: Loss) -> None:
    assert probed(loss) is None


def test_terms_that_share_no_weights_are_not_compared() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 1), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.other(x)

    assert probed(lambda a, b, x: 1e9 * first(a, x) + second(b, x), Apart()) is None


def test_the_model_stays_as_it_is() -> None:
    model = TwoHeads()
    before = copy.deepcopy(model.state_dict())

    probed(lambda a, b, x: F.mse_loss(a, 1e5 + 1e4 * x[:, :1]) + second(b, x), model)

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_terms_of_each_sample_are_found_below_their_mean() -> None:
    def elbo(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        rebuilt = (a - x).square().sum(dim=1)
        return (rebuilt + 1e3 * b.square().sum(dim=1)).mean()

    found = probed(elbo)

    assert found["terms"] == 2
    assert found["factor"] in (pytest.approx(1e-3), pytest.approx(1e3))
    assert found["boost"] == pytest.approx(1e3)


def test_a_loss_of_products_is_one_term() -> None:
    def by_hand(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        p, y = torch.sigmoid(a), (x[:, :1] > 0).float()
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    assert probed(by_hand) is None
