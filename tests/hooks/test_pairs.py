"""Tables of all pairs that a loss by hand averages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.nn import functional as F

from gradlint.engine import Observer
from gradlint.hooks.written import written

N = 6
Loss = Callable[[Tensor], Tensor]

GENERATOR = torch.Generator().manual_seed(0)
ROW = torch.randn(N, generator=GENERATOR)
MORE = torch.randn(N, generator=GENERATOR)
TABLE = torch.randn(N, N, generator=GENERATOR)
LEARNED = TABLE.clone().requires_grad_()
ACTIONS = torch.tensor([0, 1, 1, 0, 1, 0])
COLUMN = ROW[:, None]


def told(loss: Loss, outputs: int = 1, *, of: nn.Module | None = None) -> dict[str, float] | None:
    """What is told of a loss of six outputs; a column unless there are more of each."""
    torch.manual_seed(0)
    model = of or nn.Linear(4, outputs)
    with Observer(model) as observer, observer.step(0):
        output = model(torch.randn(N, 4))
        observer.forward_done(loss(output))
        assert observer.captured is not None
        found = written(observer.captured, [output]).get("pairs")
        return None if found is None else dict(found)


def chosen(o: Tensor) -> Tensor:
    """Of two values each that of the action, as a row."""
    return o.gather(1, ACTIONS[:, None]).squeeze(1)


def huber(e: Tensor) -> Tensor:
    e = e.abs()
    return torch.where(e < 1, 0.5 * e**2, 0.7 * (e - 0.5)).mean()


ERRORS: dict[str, Callable[[Tensor], Tensor]] = {
    "squares": lambda e: e.pow(2).mean(),
    "products": lambda e: (e * e).sum() / N,
    "sizes": lambda e: e.abs().sum(),
    "rows-first": lambda e: e.square().sum(1).mean(),
    "columns-first": lambda e: 3 * e.square().mean(0, keepdim=True).mean(),
    "huber": huber,
    "signs": lambda e: torch.where(e < 0, -0.1 * e, e.abs()).mean(),
    "pinball": lambda e: torch.maximum(0.9 * e, -0.1 * e).mean(),
    "log-cosh": lambda e: torch.log(torch.cosh(e + 1e-12)).mean(),
    "cauchy": lambda e: e.square().log1p().mean(),
    "norm": lambda e: torch.linalg.vector_norm(e),
    "clipped": lambda e: e.clamp(-1, 1).square().mean(),
    "bent": lambda e: (e.abs() * (1 + (e.abs() > 0.5).float())).mean(),
    "elastic": lambda e: (e.square() + e.abs()).mean(),
    "root": lambda e: e.square().mean().sqrt(),
    "less-a-margin": lambda e: (e.abs() - 0.1).mean(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_an_error_averaged_over_all_pairs_is_told(error: Callable[[Tensor], Tensor]) -> None:
    column, row = {"count": 6.0, "column": 1.0}, {"count": 6.0, "column": 0.0}

    assert told(lambda o: error(o - ROW)) == column
    assert told(lambda o: error(COLUMN - chosen(o)), 2) == row
    assert told(lambda o: error(o.squeeze(1) - MORE[:, None] - 0.9 * COLUMN)) == row


def test_a_loss_of_torch_s_that_expands_its_prediction_is_told() -> None:
    with pytest.warns(UserWarning, match="target size"):
        assert told(lambda o: F.l1_loss(chosen(o), COLUMN), 2) == {"count": 6.0, "column": 0.0}


def gaussian(o: Tensor, t: Tensor, s: Tensor) -> Tensor:
    return 0.5 * (s + (t - o) ** 2 * torch.exp(-s)).mean()


LIKELIHOODS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "precisions": gaussian,
    "precisions-first": lambda o, t, s: (torch.exp(-s) * (t - o) ** 2 + s).mean(),
    "variances": lambda o, t, s: ((o - t) ** 2 / (2 * s.exp()) + 0.5 * s).sum() / N,
    "deviations": lambda o, t, s: (((o - t) / s.exp()).square() + 2 * s).mean(),
    "deviations-by-rows": lambda o, t, s: (((o - t) / s.exp()).abs() + s).sum(1).mean(),
    "normal": lambda o, t, s: -D.Normal(o, s.exp()).log_prob(t).mean(),
    "laplace": lambda o, t, s: -D.Laplace(o, F.softplus(s) + 0.1).log_prob(t).mean(),
    "student-t": lambda o, t, s: -D.StudentT(3.0, o, s.exp()).log_prob(t).mean(),
    "normal-of-one-deviation": lambda o, t, s: -D.Normal(o, 0.5).log_prob(t).mean(),
    "weights-that-sum-to-one": lambda o, t, s: (s.softmax(0) * (o - t) ** 2).sum(),
    "weighed-mean": lambda o, t, s: (s.exp() * (o - t) ** 2).sum() / s.exp().sum(),
    "one-variance": lambda o, t, s: gaussian(o, t, s.mean()),
}


@pytest.mark.parametrize("loss", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())
def test_a_likelihood_of_all_pairs_is_told(loss: Callable[..., Tensor]) -> None:
    def column(o: Tensor) -> Tensor:
        return loss(o[:, :1], ROW, o[:, 1:])

    def row(o: Tensor) -> Tensor:
        return loss(o[:, 0], COLUMN, o[:, 1])

    assert told(column, 2) == {"count": 6.0, "column": 1.0}
    assert told(row, 2) == {"count": 6.0, "column": 0.0}


PARTS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "chunk": lambda o: o.chunk(2, 1),
    "split": lambda o: o.split([1, 1], 1),
    "unbind": lambda o: o.unbind(1),
    "select": lambda o: (o[:, -2], o[..., 1]),
    "slice-and-select": lambda o: (o[:, 0:1], o[:, -1:]),
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_parts_of_an_output_are_used_once_each(parts: Callable[[Tensor], Any]) -> None:
    def loss(o: Tensor) -> Tensor:
        mean, deviation = parts(o)
        return gaussian(mean, COLUMN if mean.ndim == 1 else ROW, deviation)

    assert told(loss, 2) is not None
    assert told(lambda o: loss(o) + parts(o)[0].mean(), 2) is None
    assert told(lambda o: loss(o) + o.mean(), 2) is None
    assert told(lambda o: loss(o) + o[:, :2].mean(), 2) is None
    assert told(lambda o: loss(o[:, 1:]) + o[:, 0].mean(), 3) is not None
    assert told(lambda o: loss(o[:, :2]) + o[2:].mean(), 3) is None


def test_a_part_that_is_read_with_others_is_used_twice() -> None:
    def loss(o: Tensor) -> Tensor:
        deviation, mean = o.chunk(2, 1)
        return gaussian(mean, ROW, deviation) + torch.cat([deviation, mean]).mean()

    assert told(loss, 2) is None


class Deviation(nn.Module):
    """One deviation for all inputs, learned beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.log = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize("loss", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())
def test_a_likelihood_with_a_parameter_for_its_deviation_is_told(
    loss: Callable[..., Tensor],
) -> None:
    model = Deviation()
    found = told(lambda o: loss(o, ROW, model.log), of=model)

    assert found == {"count": 6.0, "column": 1.0}


WEIGHED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "along-the-targets": lambda e, s: (e.square() * s.T).mean(),
    "of-each-pair": lambda e, s: (e.square() * (s * ROW)).mean(),
    "of-each-pair-by-parameters": lambda e, s: (e.square() * (s @ s.T).exp()).mean(),
    "kernel": lambda e, s: (-e.square() * s.exp()).exp().mean(),
    "hinge-of-sums": lambda e, s: F.relu(s - e.square()).mean(),
    "squared-sums": lambda e, s: (s - e.square()).square().mean(),
    "temperature": lambda e, s: (-e.square() * s.exp().mean()).log_softmax(1).mean(),
    "shares-of-a-row": lambda e, s: (e.square() / e.square().sum(1, keepdim=True)).mean(),
    "shares-of-all": lambda e, s: (e.square() / e.square().mean()).mean(),
    "by-a-root-of-all": lambda e, s: (e.square() * (e.square().mean() + 1).sqrt()).mean(),
    "inverse": lambda e, s: (s.exp() / (1 + e.square())).mean(),
    "potential": lambda e, s: ((s * e.square()).sum(0) - LEVELS).square().mean(),
    "differences-themselves": lambda e, s: (e * s.exp()).mean(),
    "shifted-differences": lambda e, s: (e - s).square().mean(),
    "shifted-and-weighed": lambda e, s: (e * s.exp() - 0.1 * ROW).square().mean(),
    "weighed-and-shifted": lambda e, s: (e * s.exp() - 0.1 * ROW).mean(),
    "weighed-and-added-to": lambda e, s: (e * s.exp() + s).mean(),
    "powers": lambda e, s: (e.abs() ** s.exp()).mean(),
    "added-by-products": lambda e, s: torch.addcmul(e.square(), s, s).exp().mean(),
    "many-tables": lambda e, s: (e.square() * s.expand(3, N, 1)).mean(),
}


@pytest.mark.parametrize("loss", WEIGHED.values(), ids=WEIGHED.keys())
def test_other_tables_weighed_by_a_model_are_silent(loss: Callable[..., Tensor]) -> None:
    assert told(lambda o: loss(o[:, :1] - ROW, o[:, 1:]), 2) is None


def test_half_precision_is_precise_enough() -> None:
    def loss(o: Tensor) -> Tensor:
        return (o.bfloat16() - ROW.bfloat16()).square().mean()

    assert told(loss) is not None


def energy(o: Tensor) -> Tensor:
    return (o - ROW).abs().mean() - 0.5 * (o - o.T).abs().mean()


def energy_of_distances(o: Tensor) -> Tensor:
    return (o.squeeze(1) - COLUMN).abs().mean() - F.pdist(o).mean()


def transported(o: Tensor) -> Tensor:
    cost = (o - ROW).square()
    return (cost * (-cost.detach()).softmax(1)).sum()


LEVELS = torch.linspace(0.1, 0.9, N)


def quantiles(o: Tensor) -> Tensor:
    error = COLUMN - o.squeeze(1)
    return ((LEVELS - (error.detach() < 0).float()).abs() * error.abs()).mean()


def unkept(e: Tensor) -> Tensor:
    return torch.where(e < 0, -2 * e, e).mean()


MEANT: dict[str, Loss] = {
    "energy-distance": energy,
    "energy-distance-by-pdist": energy_of_distances,
    "transport": transported,
    "levels-of-quantiles": quantiles,
    "levels-by-maximum": lambda o: (
        torch.maximum(LEVELS * (o.squeeze(1) - COLUMN), (LEVELS - 1) * (o.squeeze(1) - COLUMN))
    ).mean(),
    "a-level-for-each": lambda o: ((o - ROW).abs() * LEVELS).mean(),
    "a-level-for-each-prediction": lambda o: ((o - ROW).abs() / LEVELS[:, None]).mean(),
    "all-pairs-chosen": lambda o: ((o - ROW).square() * torch.ones(N, N)).mean(),
    "divided-by-scales": lambda o: ((o - ROW) / LEVELS).square().mean(),
    "kernel": lambda o: (-(o - ROW).square()).exp().mean(),
    "power-of-two": lambda o: (2 ** (o - ROW)).mean(),
    "inverse-distances": lambda o: ((o - ROW).abs() + 0.1).pow(-1).mean(),
    "inverse-squares": lambda o: (o - ROW).pow(-2).mean(),
    "square-roots": lambda o: (o - ROW + 9).pow(0.5).mean(),
    "logarithms": lambda o: (o - ROW + 9).log().mean(),
    "landmarks-at-known-distances": lambda o: ((o - ROW).abs() - TABLE.abs()).square().mean(),
    "a-table-of-targets": lambda o: (o - TABLE).square().mean(),
    "a-table-added-later": lambda o: (o - ROW - TABLE).square().mean(),
    "one-target-for-all": lambda o: (o - torch.full((N, N), 0.3)).square().mean(),
    "targets-of-the-same-row": lambda o: (o - COLUMN.expand(N, N)).square().mean(),
    "pairs-chosen-by-class": lambda o: torch.where(
        ACTIONS[:, None] == ACTIONS, (o - ROW).square(), 0.0
    ).mean(),
    "pairs-of-one-class": lambda o: (
        (o - ROW).square() * (ACTIONS[:, None] == ACTIONS).float()
    ).mean(),
    "diagonal-left-out": lambda o: (o - ROW).square().masked_fill(torch.eye(N) > 0, 0).mean(),
    "nearest": lambda o: (o - ROW).abs().amin(1).mean(),
    "nearest-of-means": lambda o: (o - ROW).abs().mean(1).amin(),
    "weights-of-rows": lambda o: ((o - ROW).square().mean(1) * LEVELS).sum(),
    "soft-assignment": lambda o: (o - ROW).square().softmax(1).square().mean(),
    "running-sums": lambda o: (o - ROW).square().cumsum(1).mean(),
    "hinge": lambda o: F.relu(0.1 - (o - ROW)).mean(),
    "differences-themselves": lambda o: (o - ROW).mean(),
    "axis-put-in-by-hand": lambda o: (o.squeeze(1).unsqueeze(1) - ROW).square().mean(),
    "axis-put-in-early": lambda o: (2 * o.squeeze(1)[:, None] - ROW).square().mean(),
    "used-once-more": lambda o: (o - ROW).square().mean() + o.mean(),
    "used-once-more-before": lambda o: (o.squeeze(1) - COLUMN).square().mean() + o.mean(),
    "turned": lambda o: (o.T - COLUMN).square().mean(),
    "of-two-predictions": lambda o: (o - o.T).square().mean(),
    "beside-another-signal": lambda o: ((o - ROW).square() + o.exp()).mean(),
    "times-what-is-learned": lambda o: ((o - ROW).square() * LEARNED).mean(),
    "chosen-and-not-kept": lambda o: unkept(o - ROW),
    "of-many-tables": lambda o: (o - ROW - torch.zeros(3, N, N)).square().mean(),
    "five-quantiles": lambda o: (o - ROW[:5]).abs().mean(),
    "of-one-shape": lambda o: (o - COLUMN).square().mean(),
    "of-another-shape": lambda o: (o - ROW).square().flatten().mean(),
    "not-a-number": lambda o: (o - ROW / 0).square().mean(),
    "targets-almost-equal": lambda o: (o - 1e-6 * ROW).square().mean(),
    "two-samples": lambda o: (o[:2] - ROW[:2]).square().mean(),
}


@pytest.mark.parametrize("loss", MEANT.values(), ids=MEANT.keys())
def test_tables_of_which_more_is_used_than_a_mean_are_silent(loss: Loss) -> None:
    assert told(loss) is None


def test_an_axis_that_the_model_put_in_is_a_column() -> None:
    class Column(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[:, 0].tanh().unsqueeze(1)

    assert told(lambda o: (o - ROW).square().mean(), of=Column()) is not None


def test_two_predictions_in_one_are_used_once_each() -> None:
    def loss(o: Tensor) -> Tensor:
        sampled = o[:, 0] + o[:, 1] * MORE
        return (sampled - COLUMN).square().mean()

    assert told(loss, 2) is not None


def unseen(loss: Loss, last: nn.Module | None = None) -> dict[str, float] | None:
    """What is told where the model ran before anybody looked."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), last or nn.Identity())
    output = model(torch.randn(N, 4))
    with Observer(model) as observer, observer.step(0):
        observer.forward_done(loss(output))
        assert observer.captured is not None
        return dict(written(observer.captured, []).get("pairs", {})) or None


class Scaled(nn.Module):
    """Holds a factor that the loss is weighed with."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_model_that_nobody_saw_ends_where_its_parameters_do() -> None:
    def squares(o: Tensor) -> Tensor:
        return (o - ROW).square().mean()

    scaled = Scaled()

    assert unseen(squares) == {"count": 6.0, "column": 1.0}
    assert unseen(squares, nn.Softplus()) == {"count": 6.0, "column": 1.0}
    assert unseen(lambda o: squares(o) + o.mean()) is None
    assert unseen(lambda o: squares(o) * scaled.scale, scaled) is None


def test_a_table_inside_a_model_is_its_own_business() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 1), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.first(x) - ROW).square().mean().reshape(1))

    assert told(lambda o: o.sum(), of=Inside()) is None
