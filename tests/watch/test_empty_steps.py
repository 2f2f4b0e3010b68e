"""Phases of a script whose optimizer finds no gradient, because their loss leads nowhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gradlint.finding import Severity
from gradlint.trace import EmptyFacts, LoopFacts
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

FIRST, SECOND = 50, 60

Net = nn.Sequential
Step = Callable[[Net, torch.optim.Optimizer], None]


def loss_of(net: Net) -> Tensor:
    x = torch.randn(16, 6)
    return cross_entropy(net(x), x[:, :3].argmax(1))


def train(net: Net, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(net).backward()
    optimizer.step()


def rewrapped(net: Net, optimizer: torch.optim.Optimizer) -> None:
    loss = torch.tensor([loss_of(net).item()], requires_grad=True).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def cleared(net: Net, optimizer: torch.optim.Optimizer) -> None:
    """Another fault."""
    loss_of(net).backward()
    optimizer.zero_grad()
    optimizer.step()


def perturbed(net: Net, optimizer: torch.optim.Optimizer) -> None:
    """Of weights that are kept, the input is what learns."""
    net.requires_grad_(False)
    x = torch.randn(16, 6, requires_grad=True)
    net(x).sum().backward()
    optimizer.step()


def by_hand(net: Net, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    torch.randn(3, requires_grad=True).sum().backward()
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def once_in_a_while(net: Net, optimizer: torch.optim.Optimizer) -> None:
    step = [*optimizer.state.values()]
    (train if len(step) == 0 else rewrapped)(net, optimizer)


def watched(second: Step, every: object = "auto", first: int = FIRST) -> LoopFacts:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with Watcher(net, every=every) as watcher:  # type: ignore[arg-type]
        for steps, step in ((first, train), (SECOND, second)):
            optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
            for _ in range(steps):
                step(net, optimizer)
    unfailed(watcher)
    loop = watcher.trace().facts.loop
    assert loop is not None
    return loop


@BOTH
def test_an_optimizer_that_took_over_and_finds_nothing_is_known(every: object) -> None:
    (found,) = watched(rewrapped, every).empty

    assert (found.kind, found.first, found.steps) == ("AdamW", FIRST + 1, SECOND)
    assert 3 <= found.seen <= SECOND


@pytest.mark.parametrize("second", [train, cleared, perturbed, by_hand, once_in_a_while])
def test_steps_that_find_something_are_not_empty(second: Step) -> None:
    assert watched(second).empty == ()


def test_a_loop_that_never_learned_is_told_of_by_its_parameters() -> None:
    assert watched(rewrapped, first=0).empty == ()


def test_one_of_two_that_step_by_turns_may_rest() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    net[0].requires_grad_(False)
    with Watcher(net) as watcher:
        head = torch.optim.Adam(net[2].parameters(), 1e-3)
        train(net, head)
        net[0].requires_grad_(True)
        trunk = torch.optim.Adam(net[0].parameters(), 1e-3)
        for _ in range(SECOND):
            for optimizer in (trunk, head):
                optimizer.zero_grad()
            cross_entropy(net[2](net[1](net[0](torch.randn(16, 6))).detach()), torch.arange(16) % 3)
            train_head = loss_of(nn.Sequential(net[0], net[1], net[2]))
            torch.autograd.backward(train_head, inputs=list(net[2].parameters()))
            trunk.step()
            head.step()
    unfailed(watcher)
    loop = watcher.trace().facts.loop

    assert loop is not None
    assert loop.empty == ()


def test_the_second_phase_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with Watcher(net) as watcher:
        for steps, step in ((FIRST, train), (SECOND, rewrapped)):
            optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
            for _ in range(steps):
                step(net, optimizer)

    (found,) = [f for f in watcher.report.causes if f.severity is Severity.ERROR]
    assert (found.code, found.step) == ("GL708", FIRST + 1)
    trace = watcher.trace()
    write_trace(tmp_path / "run.jsonl", trace)
    again = read_trace(tmp_path / "run.jsonl").facts.loop
    assert again is not None
    assert again.empty == (EmptyFacts("AdamW", FIRST + 1, SECOND, again.empty[0].seen),)


def resumed(kept: list[Net], *, whole: bool) -> None:
    """Train on; the model that was saved takes the place of the one the optimizer holds."""
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    if kept and whole:
        net = copy.deepcopy(kept[-1])
    elif kept:
        net.load_state_dict(kept[-1].state_dict())
    for _ in range(SECOND):
        train(net, optimizer)
    kept[:] = [net]


@pytest.mark.parametrize("whole", [False, True])
def test_a_model_that_took_the_place_of_what_the_optimizer_holds(whole: bool) -> None:
    torch.manual_seed(0)
    kept: list[Net] = []

    with Watcher(discover=True) as watcher:
        resumed(kept, whole=whole)
        resumed(kept, whole=whole)

    unfailed(watcher)
    loop = watcher.trace().facts.loop
    assert loop is not None
    assert [(e.first, e.steps, e.foreign) for e in loop.empty] == [(SECOND + 1, SECOND, 4)] * whole
    errors = [f.code for f in watcher.report.causes if f.severity is Severity.ERROR]
    assert errors == ["GL703"] * whole


class Masters(torch.optim.Optimizer):
    """Steps single-precision copies by gradients that it is given beside `.grad`."""

    def __init__(self, net: Net) -> None:
        self.net = net
        masters = [nn.Parameter(p.detach().clone()) for p in net.parameters()]
        super().__init__(masters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for master, p in zip(self.param_groups[0]["params"], self.net.parameters(), strict=True):
            master -= 0.1 * p.grad
            p.copy_(master)


def test_copies_that_are_fed_elsewhere_than_in_grad_move() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with Watcher(discover=True) as watcher:
        first = torch.optim.AdamW(net.parameters(), 1e-3)
        for _ in range(FIRST):
            train(net, first)
        second = Masters(net)
        for _ in range(SECOND):
            net.zero_grad()
            loss_of(net).backward()
            second.step()

    unfailed(watcher)
    loop = watcher.trace().facts.loop
    assert loop is not None
    assert loop.empty == ()
