"""A frozen trunk in a second model: fresh, or copied from the first by whatever means."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gradlint.finding import Severity
from gradlint.watching import Watcher
from gradlint.watching.taken_over import taken_over
from tests.watch.loops import unfailed


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    )


def train(model: nn.Module, steps: int = 30) -> None:
    x = torch.randn(96, 16)
    y = (x @ torch.randn(16, 3)).argmax(1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def fresh(model: nn.Module) -> nn.Module:
    return net()


def loaded(model: nn.Module) -> nn.Module:
    other = net()
    other.load_state_dict(model.state_dict())
    return other


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    other: nn.Module = torch.load(file, weights_only=False)
    return other


def by_hand(model: nn.Module) -> nn.Module:
    other = net()
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs)
    return other


def averaged(model: nn.Module) -> nn.Module:
    other = torch.optim.swa_utils.AveragedModel(model)
    train(model)
    other.update_parameters(model)
    module: nn.Module = other.module
    return module


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (fresh, Severity.ERROR),
        (loaded, Severity.NOTE),
        (copy.deepcopy, Severity.NOTE),
        (saved, Severity.NOTE),
        (by_hand, Severity.NOTE),
        (averaged, Severity.NOTE),
    ],
)
def test_a_frozen_trunk_is_an_error_where_its_weights_came_from_nowhere(
    second: Callable[[nn.Module], nn.Module], expected: Severity
) -> None:
    torch.manual_seed(0)
    first = net()
    with Watcher(discover=True) as watcher:
        train(first)
        model = second(first)
        model.requires_grad_(False)
        model[4] = nn.Linear(64, 3)  # type: ignore[operator]
        train(model)
    report = watcher.report

    unfailed(watcher)
    found = [f.severity for f in report.findings if f.code == "GL712"]
    assert found == [expected]


def test_a_model_frozen_as_a_whole_is_not_asked_for() -> None:
    one, other = nn.Linear(32, 32), nn.Linear(32, 32)
    other.load_state_dict(one.state_dict())
    other.requires_grad_(False)
    named = {f"a.{n}": p for n, p in one.named_parameters()}
    named |= {f"b.{n}": p for n, p in other.named_parameters()}

    assert taken_over(named, set()) == set()

    named["b.head"] = nn.Parameter(torch.ones(3))
    assert taken_over(named, set()) == {"b.weight", "b.bias"}
    assert taken_over(named, {"b.weight", "b.bias"}) == set()


def test_weights_of_zeros_are_like_nothing() -> None:
    named = {
        "a.weight": nn.Parameter(torch.zeros(32, 32)),
        "b.weight": nn.Parameter(torch.zeros(32, 32), requires_grad=False),
        "b.head": nn.Parameter(torch.ones(3)),
    }

    assert taken_over(named, set()) == set()
