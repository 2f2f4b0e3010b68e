"""Layers that are replaced while a loop goes on: whose numbers are whose, and who holds what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gradlint.finding import Severity
from gradlint.report_records import ReportedFinding
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

Swap = Callable[["Net", torch.optim.Optimizer], torch.optim.Optimizer]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).relu())


def fit(net: Net, optimizer: torch.optim.Optimizer, steps: int) -> None:
    x = torch.randn(64, 8)
    y = x[:, :3].argmax(1)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()


def watched(swap: Swap, every: Any, *, discover: bool = True) -> Watcher:
    torch.manual_seed(3)
    net = Net()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    with Watcher(None if discover else net, discover=discover, every=every) as watcher:
        fit(net, optimizer, 60)
        fit(net, swap(net, optimizer), 80)
    unfailed(watcher)
    return watcher


def loud(watcher: Watcher) -> list[ReportedFinding]:
    """Return the findings that are no notes: other data after a swap may be a spike."""
    return [f for f in watcher.report.causes if f.severity > Severity.NOTE]


def only_swaps(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    net.fc = nn.Linear(16, 5)
    return optimizer


def before_the_swap(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    second = torch.optim.Adam(net.parameters(), 1e-2)
    net.fc = nn.Linear(16, 5)
    return second


def assigned(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    state = copy.deepcopy(net.state_dict())
    net.load_state_dict({n: nn.Parameter(t) for n, t in state.items()}, assign=True)
    return optimizer


def another_group(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    net.fc = nn.Linear(16, 5)
    optimizer.add_param_group({"params": net.fc.parameters(), "lr": 0.05})
    return optimizer


def after_the_swap(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    net.fc = nn.Linear(16, 5)
    return torch.optim.Adam(net.parameters(), 1e-2)


def frozen(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    net.fc = nn.Linear(16, 5).requires_grad_(False)
    return optimizer


def by_hand(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    net.fc = nn.Linear(16, 5)

    def descend(*args: Any) -> None:
        with torch.no_grad():
            for parameter in net.fc.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
                    parameter.grad = None

    optimizer.register_step_post_hook(descend)
    return optimizer


def the_same_again(net: Net, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    fc = net.fc
    net.fc = nn.Linear(16, 5)
    net(torch.randn(2, 8))
    net.fc = fc
    return optimizer


@BOTH
@pytest.mark.parametrize("discover", [True, False])
@pytest.mark.parametrize(
    ("swap", "place"), [(only_swaps, "fc"), (before_the_swap, "fc"), (assigned, "")]
)
def test_a_layer_replaced_after_its_optimizer_was_built_is_named(
    swap: Swap, place: str, discover: bool, every: Any
) -> None:
    found = loud(watched(swap, every, discover=discover))
    assert [(f.code, f.module, f.severity) for f in found] == [("GL702", place, Severity.ERROR)]
    assert "had replaced those" in found[0].message


@BOTH
@pytest.mark.parametrize("swap", [another_group, after_the_swap, frozen, by_hand, the_same_again])
def test_one_that_learns_or_is_not_to_is_not(swap: Swap, every: Any) -> None:
    assert not loud(watched(swap, every))


@BOTH
def test_heads_that_take_turns_in_one_place_are_all_held(every: Any) -> None:
    torch.manual_seed(4)
    net = Net()
    heads = [nn.Linear(16, 3) for _ in range(3)]
    parameters = [*net.body.parameters(), *(p for head in heads for p in head.parameters())]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    with Watcher(discover=True, every=every) as watcher:
        for turn in range(12):
            net.fc = heads[turn % 3]
            fit(net, optimizer, 10)
    unfailed(watcher)
    assert not loud(watcher)


def test_what_was_measured_of_a_layer_is_not_told_of_the_next() -> None:
    trace = watched(only_swaps, 1).trace()
    since = trace.parameters["fc.weight"].since
    assert 60 < since <= 122
    assert trace.parameters["fc.weight"].shape == (5, 16)
    assert not trace.parameters["body.weight"].since
    updates = trace.of("update_to_weight_ratio").at("fc.weight")
    assert min(o.value for o in updates.training if o.step < 60) > 0
    assert max(o.value for o in updates if o.step >= since) == 0
