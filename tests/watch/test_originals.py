"""Copies of a model that are adapted and thrown away, and the optimizer of the model itself."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from gradlint.finding import Severity
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from gradlint.watching.originals import MOST, Originals
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

STEPS = 24


class Learner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).tanh())


def task() -> tuple[Tensor, Tensor]:
    x = torch.randn(16, 2)
    return x, x @ torch.randn(2, 1)


def adapted(model: Learner, x: Tensor, y: Tensor) -> Learner:
    fast = copy.deepcopy(model)
    inner = torch.optim.SGD(fast.parameters(), 0.05)
    inner.zero_grad()
    mse_loss(fast(x), y).backward()
    inner.step()
    inner.zero_grad()
    return fast


Outer = Callable[[Learner, list[Learner]], None]


def lost(model: Learner, copies: list[Learner]) -> None:
    """The gradients stay with the copies."""


def first_order(model: Learner, copies: list[Learner]) -> None:
    for parameter, *others in zip(
        model.parameters(), *(c.parameters() for c in copies), strict=True
    ):
        parameter.grad = torch.stack([o.grad for o in others if o.grad is not None]).mean(0)


def interpolated(model: Learner, copies: list[Learner]) -> None:
    """Reptile by hand: the optimizer's own step is for its schedule."""
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), copies[0].parameters(), strict=True):
            parameter.lerp_(other, 0.1)


def averaged(model: Learner, copies: list[Learner]) -> None:
    """Federated: the server loads the mean of its clients."""
    states = [c.state_dict() for c in copies]
    model.load_state_dict({n: torch.stack([s[n] for s in states]).mean(0) for n in states[0]})


def watched(outer: Outer, every: Any, hold: Callable[[Learner], Any] | None = None) -> Watcher:
    torch.manual_seed(1)
    model = Learner()
    optimizer = torch.optim.Adam(model.parameters() if hold is None else hold(model), 1e-2)
    with Watcher(discover=True, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            x, y = task()
            copies = [adapted(model, x, y) for _ in range(2)]
            sum((mse_loss(c(x), y) for c in copies), torch.zeros(())).backward()
            outer(model, copies)
            optimizer.step()
    unfailed(watcher)
    return watcher


def loud(watcher: Watcher) -> list[str]:
    return [f.code for f in watcher.report.findings if f.severity > Severity.NOTE]


@BOTH
def test_an_outer_loss_that_ends_in_the_copies_is_named(every: Any, tmp_path: Path) -> None:
    watcher = watched(lost, every)
    first = watcher.report.findings[0]
    assert (first.code, first.severity) == ("GL703", Severity.ERROR)
    assert "had moved none of the 4 parameters it holds" in first.message
    (seen,) = watcher.trace().facts.loop.originals
    assert (seen.kind, seen.parameters, seen.model) == ("Adam", 4, "Learner")
    assert STEPS / 2 <= seen.steps < STEPS
    assert 2 <= seen.copies <= 2 * STEPS
    write_trace(tmp_path / "run.jsonl", watcher.trace())
    assert read_trace(tmp_path / "run.jsonl").facts.loop.originals == (seen,)


@BOTH
@pytest.mark.parametrize("outer", [first_order, interpolated, averaged])
def test_an_original_that_learns_from_its_copies_is_not(outer: Outer, every: Any) -> None:
    watcher = watched(outer, every)
    assert not watcher.trace().facts.loop.originals
    assert "GL703" not in loud(watcher)


@BOTH
def test_one_whose_first_steps_alone_are_empty_is_not(every: Any) -> None:
    made = iter(range(STEPS))

    def late(model: Learner, copies: list[Learner]) -> None:
        if next(made) > STEPS / 2:
            first_order(model, copies)

    assert not watched(late, every).trace().facts.loop.originals


@pytest.mark.parametrize(
    "hold",
    [
        pytest.param(lambda model: [nn.Parameter(torch.zeros(1))], id="for-the-schedule-alone"),
        pytest.param(lambda model: nn.Linear(2, 3).parameters(), id="of-another-model"),
        pytest.param(lambda model: model.head.parameters(), id="of-a-part-of-it"),
    ],
)
def test_an_optimizer_of_no_original_is_not(hold: Callable[[Learner], Any]) -> None:
    assert not watched(lost, 1, hold).trace().facts.loop.originals


@BOTH
def test_second_order_by_functional_calls_is_not(every: Any) -> None:
    torch.manual_seed(2)
    model = Learner()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Watcher(discover=True, every=every) as watcher:
        for _ in range(STEPS):
            x, y = task()
            own = dict(model.named_parameters())
            loss = mse_loss(functional_call(model, own, (x,)), y)
            slopes = torch.autograd.grad(loss, list(own.values()), create_graph=True)
            fast = {n: p - 0.05 * g for (n, p), g in zip(own.items(), slopes, strict=True)}
            optimizer.zero_grad()
            mse_loss(functional_call(model, fast, (x,)), y).backward()
            optimizer.step()
    unfailed(watcher)
    assert not watcher.trace().facts.loop.originals
    assert "GL703" not in loud(watcher)


def test_one_copy_is_a_target_not_a_task() -> None:
    torch.manual_seed(3)
    model, other = Learner(), Learner()
    idle, optimizer = (torch.optim.Adam(m.parameters(), 1e-2) for m in (model, other))
    with Watcher(discover=True, every=1) as watcher:
        for _ in range(STEPS):
            x, y = task()
            optimizer.zero_grad()
            mse_loss(other(x), y).backward()
            optimizer.step()
            idle.step()
    unfailed(watcher)
    assert not watcher.trace().facts.loop.originals


def test_nothing_is_known_while_the_loop_goes_on() -> None:
    """To ask a device what moved is to wait for it."""
    torch.manual_seed(4)
    model = Learner()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Watcher(discover=True, every=1) as watcher:
        for _ in range(STEPS):
            for _ in range(2):
                adapted(model, *task())
            optimizer.step()
        assert not watcher.trace().facts.loop.originals
    assert watcher.trace().facts.loop.originals


def test_optimizers_that_are_built_anew_are_not_followed_for_ever() -> None:
    originals = Originals()
    model = nn.Linear(2, 2)
    built = [torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(MOST + 5)]

    due = [originals.steps(optimizer, 0) for optimizer in built]

    assert due[MOST - 1] == 1
    assert set(due[MOST:]) == {sys.maxsize}
