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
    asked: set[str] = set()
    assert taken_over(named, asked) == {"b.weight"}
    assert taken_over(named, asked) == set()


def frozen(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param((torch.zeros(32, 32), torch.zeros(32, 32)), id="zeros"),
        pytest.param((torch.rand(32, 32), torch.rand(32, 32)), id="off-center"),
        pytest.param((torch.ones(32, 32, device="meta"),) * 2, id="meta"),
    ],
)
def test_what_two_models_have_by_chance_is_not_taken_over(
    weights: tuple[torch.Tensor, torch.Tensor],
) -> None:
    named = {"a.weight": nn.Parameter(weights[0]), "b.weight": frozen(weights[1].clone())}
    named["b.head"] = nn.Parameter(torch.ones(3))

    assert taken_over(named, set()) == set()


def test_a_table_of_both_says_nothing_of_the_other_weights() -> None:
    table = torch.linspace(0, 9, 1024).sin().reshape(32, 32)
    named = {f"{m}.table": frozen(table.clone()) for m in "ab"}
    named |= {"a.trunk": frozen(torch.randn(32, 32)), "b.trunk": nn.Parameter(torch.randn(32, 32))}
    named["a.head"] = nn.Parameter(torch.ones(3))

    assert taken_over(named, set()) == {"a.table", "b.table"}


def test_a_lazy_parameter_of_another_model_ends_no_watching() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.now, self.later = nn.Linear(16, 3), nn.LazyLinear(3)

        def forward(self, x: torch.Tensor, late: bool) -> torch.Tensor:
            return self.now(x) + (self.later(x) if late else 0)

    one, other = net(), Late()
    one[0].requires_grad_(False)
    held = [*one[2:].parameters(), *other.now.parameters()]
    optimizer = torch.optim.SGD(held, lr=0.1)
    with Watcher([one, other]) as watcher:
        for step in range(12):
            x = torch.randn(8, 16)
            optimizer.zero_grad()
            (one(x) + other(x, step > 6)).square().mean().backward()
            optimizer.step()

    unfailed(watcher)
