"""Losses by hand whose targets have another shape than the predictions, in loops as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def fit(net: nn.Module, loss: Step, every: Any) -> list[tuple[str, str | None]]:
    """Train on states, actions and returns; what is found, and where."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    with Watcher(net, every=every) as watcher:
        for _ in range(40):
            x, actions = torch.randn(32, 4), torch.randint(0, 2, (32,))
            optimizer.zero_grad()
            loss(x, actions, x.sum(1) + 0.1 * torch.randn(32)).backward()
            optimizer.step()
    unfailed(watcher)
    return [(f.code, f.module) for f in watcher.report.findings if f.severity.label != "note"]


def values(net: nn.Module, error: Callable[[Tensor], Tensor], *, column: bool) -> Step:
    """The value of the action taken against what is expected of it."""

    def loss(x: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        value = net(x).gather(1, actions.unsqueeze(1)).squeeze(1)
        return error(value - (returns.unsqueeze(1) if column else returns))

    return loss


def huber(e: Tensor) -> Tensor:
    e = e.abs()
    return torch.where(e < 1, 0.5 * e**2, e - 0.5).mean()


@BOTH
@pytest.mark.parametrize("error", [lambda e: e.pow(2).mean(), huber], ids=["squares", "huber"])
def test_expected_values_in_a_column_are_told_of(error: Any, every: Any) -> None:
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))

    assert ("GL605", None) in fit(net, values(net, error, column=True), every)


class ActorCritic(nn.Module):
    """Scores and a value, in a column."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.Tanh())
        self.scores, self.value = nn.Linear(32, 2), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.scores(h), self.value(h)


def actor_critic(net: nn.Module, *, column: bool) -> Step:
    """A policy's gradient and an error of the values in one loss."""

    def loss(x: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        scores, value = net(x)
        row = value.squeeze(1)
        chosen = F.log_softmax(scores, 1).gather(1, actions[:, None]).squeeze(1)
        error = (returns - (value if column else row)).pow(2).mean()
        return error - (chosen * (returns - row.detach())).mean()

    return loss


@BOTH
def test_values_in_a_column_are_told_of_beside_a_policy(every: Any) -> None:
    net = ActorCritic()

    assert ("GL605", "value") in fit(net, actor_critic(net, column=True), every)


@BOTH
def test_values_of_one_shape_are_left_alone(every: Any) -> None:
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    both = ActorCritic()

    assert fit(net, values(net, huber, column=False), every) == []
    assert fit(both, actor_critic(both, column=False), every) == []


@BOTH
def test_samples_that_are_compared_with_each_other_too_are_left_alone(every: Any) -> None:
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))

    def energy(x: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        drawn = net(x)
        return (drawn - returns).abs().mean() - 0.5 * (drawn - drawn.T).abs().mean()

    assert "GL605" not in {code for code, _ in fit(net, energy, every)}


@BOTH
def test_one_level_for_as_many_steps_as_there_are_samples_is_left_alone(every: Any) -> None:
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))

    def level(x: Tensor, actions: Tensor, returns: Tensor) -> Tensor:
        return (net(x) - (returns[:, None] + 0.3 * torch.randn(32, 32))).pow(2).mean()

    assert "GL605" not in {code for code, _ in fit(net, level, every)}


@BOTH
@pytest.mark.parametrize("nets", [1, 2])
@pytest.mark.parametrize("column", [True, False])
def test_a_loss_of_its_own_of_the_values_is_read_too(nets: int, column: bool, every: Any) -> None:
    torch.manual_seed(0)
    model: Any = ActorCritic()
    if nets == 2:
        parts = [nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, n)) for n in (2, 1)]
        model = nn.ModuleList(parts)
    trained = [model] if nets == 1 else list(model)
    optimizers = [torch.optim.Adam(net.parameters(), 3e-3) for net in trained]
    with Watcher(model, every=every) as watcher:
        for _ in range(40):
            x, actions = torch.randn(32, 4), torch.randint(0, 2, (32,))
            returns = x.sum(1) + 0.1 * torch.randn(32)
            scores, value = model(x) if nets == 1 else (model[0](x), model[1](x))
            value = value if column else value.squeeze(1)
            chosen = F.log_softmax(scores, 1).gather(1, actions[:, None]).squeeze(1)
            model.zero_grad()
            policy = -(chosen * (returns - value.detach().reshape(32))).mean()
            policy.backward(retain_graph=True)
            if nets == 2:
                optimizers[0].step()
            (returns - value).pow(2).mean().backward()
            optimizers[-1].step()
    unfailed(watcher)
    assert ("GL605" in {f.code for f in watcher.report.findings}) is column


class MeanAndDeviation(nn.Module):
    """A mean and the logarithm of a deviation, each a column."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.SiLU())
        self.mean, self.log = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.mean(h), self.log(h).clamp(-3, 3)


def by_hand(mean: Tensor, log: Tensor, target: Tensor) -> Tensor:
    return (log + 0.5 * (target - mean) ** 2 * torch.exp(-2 * log)).mean()


def normal(mean: Tensor, log: Tensor, target: Tensor) -> Tensor:
    return -torch.distributions.Normal(mean, log.exp()).log_prob(target).mean()


@BOTH
@pytest.mark.parametrize("likelihood", [by_hand, normal])
def test_a_likelihood_of_all_pairs_is_told_of(likelihood: Any, every: Any) -> None:
    net = MeanAndDeviation()

    def loss(column: bool) -> Step:
        return lambda x, _, y: likelihood(*net(x), y[:, None] if column else y)

    assert ("GL605", "mean") in fit(net, loss(column=False), every)
    assert "GL605" not in {code for code, _ in fit(MeanAndDeviation(), loss(column=True), every)}
