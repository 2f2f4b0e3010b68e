"""Tables of all pairs that a loss by hand averages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
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
