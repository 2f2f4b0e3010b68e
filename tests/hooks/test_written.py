"""Losses written by hand, told by their form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.engine import Observer
from gradlint.hooks.written import written

MASK = (torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.6).float()
ACTIONS = torch.tensor([0, 3, 1, 2, 0, 1])
GAIN = torch.tensor([0.5, -0.3, 0.2, 1.0, -0.7, 0.1])
FIRST = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])

Loss = Callable[[Tensor], Tensor]


def forms(loss: Loss, last: nn.Module | None = None) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), last or nn.Identity())
    with Observer(model) as observer, observer.step(0):
        output = model(torch.randn(6, 6))
        observer.forward_done(loss(output))
        assert observer.captured is not None
        return {k: dict(v) for k, v in written(observer.captured, [output]).items()}


def dice(o: Tensor, t: Tensor = MASK) -> Tensor:
    return 1 - (2 * (o * t).sum() + 1) / (o.sum() + t.sum() + 1)


def jaccard(o: Tensor) -> Tensor:
    both = (o * MASK).flatten(1).sum(1)
    return (1 - both / (o.sum(1) + MASK.sum(1) - both).clamp(min=1e-6)).mean()


def tversky(o: Tensor) -> Tensor:
    hits = (MASK.bool() * o).sum()
    return 1 - hits / (hits + 0.3 * (o * (1 - MASK)).sum() + 0.7 * ((1 - o) * MASK).sum())


@pytest.mark.parametrize("loss", [dice, jaccard, tversky])
def test_an_overlap_shows_the_values_it_is_taken_of(loss: Loss) -> None:
    found = forms(loss)

    assert list(found) == ["overlap"]
    assert found["overlap"]["minimum"] < 0 < found["overlap"]["maximum"]
    assert forms(loss, nn.Sigmoid())["overlap"]["minimum"] > 0


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda o: dice(o.sigmoid()), id="sigmoid-in-the-loss"),
        pytest.param(lambda o: dice((o + 1) / 2), id="shifted-before"),
        pytest.param(lambda o: (o * MASK).sum() / (o * o).sum(), id="squares-below"),
        pytest.param(lambda o: (o * MASK).sum() / MASK.sum(), id="a-masked-mean"),
        pytest.param(lambda o: (o * GAIN[:, None]).sum() / o.sum(), id="a-center-of-mass"),
        pytest.param(lambda o: (o * MASK / (o + 3)).sum(), id="no-sums"),
        pytest.param(lambda o: (o * MASK[:, :1]).sum() / o.sum(), id="rows-left-out"),
        pytest.param(lambda o: (o * MASK).sum() / o.abs().sum(), id="sizes-below"),
        pytest.param(lambda o: dice(o, torch.ones(6, 4)), id="no-zero"),
    ],
)
def test_what_only_looks_like_an_overlap_is_none(loss: Loss) -> None:
    assert "overlap" not in forms(loss)


def gathered(o: Tensor) -> Tensor:
    return -(o.gather(1, ACTIONS[:, None]).squeeze(1) * GAIN).mean()


def indexed(o: Tensor) -> Tensor:
    return (o[torch.arange(6), ACTIONS] * -GAIN).sum() / 6


@pytest.mark.parametrize("loss", [gathered, indexed])
def test_chosen_scores_show_whether_rows_are_log_probabilities(loss: Loss) -> None:
    raw, log = forms(loss)["chosen"], forms(loss, nn.LogSoftmax(1))["chosen"]

    assert raw["row_sum_max"] > 2
    assert raw["minimum"] < 0
    assert log["row_sum_min"] == pytest.approx(1)
    assert log["row_sum_max"] == pytest.approx(1)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda o: gathered(o.log_softmax(1)), id="log-softmax-in-the-loss"),
        pytest.param(lambda o: gathered(o) + o.logsumexp(1).mean(), id="another-term-reads-them"),
        pytest.param(lambda o: (o[range(6), ACTIONS] - GAIN).square().mean(), id="squared"),
        pytest.param(lambda o: (o[range(6), ACTIONS] * GAIN.sign()).mean(), id="signs"),
        pytest.param(lambda o: (o[range(6), ACTIONS] * FIRST).mean(), id="a-mask"),
        pytest.param(lambda o: o[range(6), ACTIONS].mean(), id="not-weighed"),
        pytest.param(lambda o: (o[ACTIONS] * GAIN[:, None]).mean(), id="whole-rows"),
        pytest.param(lambda o: (o * GAIN[:, None]).mean(), id="nothing-chosen"),
        pytest.param(lambda o: (o[:, :, None][range(6), ACTIONS, 0].exp() * GAIN).mean(), id="exp"),
    ],
)
def test_what_only_looks_like_a_policy_s_gradient_is_none(loss: Loss) -> None:
    assert "chosen" not in forms(loss)


def ranked(o: Tensor, target: Tensor = FIRST) -> Tensor:
    return F.margin_ranking_loss(o[:, 0], o[:, 1], target, margin=0.5)


def test_a_ranking_shows_targets_of_zero_and_one() -> None:
    expected = {"minimum": 0.0, "maximum": 1.0, "zeros": pytest.approx(1 / 3)}

    assert forms(ranked) == {"ranking": expected}


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda o: ranked(o, 2 * FIRST - 1), id="signs"),
        pytest.param(lambda o: ranked(o, torch.ones(6)), id="ones"),
        pytest.param(lambda o: ranked(o, GAIN.sign() * FIRST), id="ties"),
        pytest.param(lambda o: F.relu(1 - FIRST * (o[:, 0] - o[:, 1])).mean(), id="a-mask"),
        pytest.param(lambda o: F.relu(1 - FIRST * o[:, 0]).mean(), id="one-score"),
        pytest.param(lambda o: F.relu(o[:, 0] - o[:, 1] + 1).mean(), id="no-targets"),
        pytest.param(lambda o: F.relu(o).mean(), id="no-hinge"),
    ],
)
def test_what_only_looks_like_a_ranking_is_none(loss: Loss) -> None:
    assert "ranking" not in forms(loss)


SOFT = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).expand(6, 4).clone()


def test_a_divergence_shows_the_sums_of_its_targets() -> None:
    (found,) = forms(lambda o: F.kl_div(o, SOFT, reduction="batchmean"), nn.Softmax(1)).values()

    assert found == {"row_sum_min": pytest.approx(1), "row_sum_max": pytest.approx(1)}
    (twice,) = forms(lambda o: F.kl_div(o, 2 * SOFT, reduction="sum")).values()
    assert twice["row_sum_max"] == pytest.approx(2)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda o: (o * SOFT - GAIN[:, None]).sum(), id="data-subtracted"),
        pytest.param(lambda o: (1 - (o * SOFT).sum(1)).mean(), id="a-number-a-row"),
        pytest.param(lambda o: (SOFT + o * SOFT).mean(), id="added"),
        pytest.param(lambda o: (SOFT - o).square().mean(), id="no-product"),
        pytest.param(lambda o: (SOFT - o * (SOFT - 0.2)).mean(), id="below-zero"),
        pytest.param(lambda o: (GAIN - o[:, 0] * GAIN.abs()).mean(), id="no-rows"),
        pytest.param(lambda o: (SOFT - o * SOFT[:1]).mean(), id="one-row-for-all"),
        pytest.param(lambda o: (o.exp() - o * SOFT).mean(), id="of-two-signals"),
    ],
)
def test_what_only_looks_like_a_divergence_is_none(loss: Loss) -> None:
    assert "divergence" not in forms(loss)


def test_factors_of_a_class_of_their_own_are_left_alone() -> None:
    frozen = nn.Parameter(MASK, requires_grad=False)

    assert forms(lambda o: dice(o, frozen)) == {}
    assert "overlap" in forms(lambda o: dice(o, frozen.data))
