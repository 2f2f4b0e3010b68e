"""Another network that trains in the same process: its backwards are not the watched model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.checkpoint import checkpoint

from gradlint.watching import Watcher
from gradlint.watching.reach import leads_to
from tests.watch.ledger import BOTH, STEPS
from tests.watch.loops import unfailed

LONG = 120
"""Steps, of which the later ones are not all looked at."""


class Two:
    """A watched classifier and another network with a loss of its own."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
        self.other = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.theirs = torch.optim.SGD(self.other.parameters(), lr=0.01)
        self.x, self.y = torch.randn(16, 6), torch.randint(0, 2, (16,))
        self.losses: list[float] = []

    def ours(self) -> None:
        loss = cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.losses.append(float(loss.detach()))

    def another(self) -> None:
        self.theirs.zero_grad()
        mse_loss(self.other(self.x), torch.full((16, 1), 50.0)).backward()
        self.theirs.step()

    def before(self) -> None:
        """Nothing is cleared between the other's backward and the model's."""
        self.another()
        self.ours()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def between(self) -> None:
        self.optimizer.zero_grad()
        self.ours()
        self.another()
        self.optimizer.step()

    def one_line(self) -> None:
        """All backwards come from one line, as in a framework."""
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(self.x), self.y)
        for each in (mse_loss(self.other(self.x), torch.full((16, 1), 50.0)), loss):
            each.backward()
        self.losses.append(float(loss.detach()))
        self.theirs.step()
        self.optimizer.step()


ORDERS: list[Callable[[Two], None]] = [Two.before, Two.between, Two.one_line]


@pytest.mark.parametrize("steps", [STEPS, LONG])
@pytest.mark.parametrize("order", ORDERS, ids=lambda o: o.__name__)
@BOTH
def test_the_loss_is_the_watched_models_alone(
    order: Callable[[Two], None], steps: int, every: Any
) -> None:
    two = Two()
    with Watcher(two.model, every=every) as watcher:
        for _ in range(steps):
            order(two)

    unfailed(watcher)
    trace = watcher.trace()
    assert trace.of("loss").training.values == pytest.approx(two.losses)
    assert (trace.facts.loop.steps, trace.facts.loop.backwards) == (steps, steps)
    assert trace.facts.loop.summed == 1
    assert [(seen.kind, seen.classes) for seen in trace.facts.losses] == [("cross_entropy", 2)]
    assert {op.module for op in trace.graph if op.parameters} == {"0", "2"}
    assert not watcher.report.findings


@BOTH
def test_a_fault_beside_another_network_is_named_as_it_is_alone(every: Any) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 5), nn.Softmax(1))
    two = Two()
    two.model, two.optimizer = model, torch.optim.SGD(model.parameters(), lr=0.05)
    with Watcher(model, every=every) as watcher:
        for _ in range(STEPS):
            two.before()
    assert [f.code for f in watcher.report.causes][:1] == ["GL601"]


def test_where_no_backward_reaches_the_model_that_is_what_is_said() -> None:
    two = Two()
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Watcher(model) as watcher:
        for _ in range(STEPS):
            two.ours()
            two.optimizer.step()
            optimizer.step()
    assert [f.code for f in watcher.report.causes] == ["GL701"]


def test_parameters_gained_later_are_the_models() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
    head, later = nn.Linear(16, 2), nn.Linear(16, 3)
    model.add_module("head", head)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, losses = torch.randn(16, 6), []
    with Watcher(model, optimizer, every=1) as watcher:
        for step in range(STEPS):
            if step == STEPS // 2:
                model.requires_grad_(requires_grad=False)
                model.head = later
                optimizer.add_param_group({"params": later.parameters()})
            optimizer.zero_grad()
            loss = cross_entropy(model(x), torch.arange(16) % 2)
            loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
    unfailed(watcher)
    assert watcher.trace().of("loss").training.values == pytest.approx(losses)


def test_a_backward_for_the_others_parameters_alone_is_theirs() -> None:
    two = Two()
    theirs = list(two.other.parameters())
    probe = nn.Linear(2, 1)
    with Watcher(two.model, two.optimizer, every=1) as watcher:
        for _ in range(STEPS):
            two.optimizer.zero_grad()
            two.ours()
            (two.other(two.x) * probe(two.model(two.x))).square().mean().backward(inputs=theirs)
            two.optimizer.step()
    assert watcher.trace().of("loss").training.values == pytest.approx(two.losses)


def ids(model: nn.Module) -> set[int]:
    return {id(p) for p in model.parameters()}


class Inner(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * 2


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_what_a_function_of_the_users_hides_may_be_the_model() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    x = torch.randn(4, 3, requires_grad=True)
    assert not leads_to([one(x).sum()], ids(other))
    assert leads_to([Inner.apply(one(x)).sum()], ids(other))
    assert leads_to([checkpoint(one, x, use_reentrant=True).sum()], ids(one))


@pytest.mark.usefixtures("compiler")
def test_what_compiled_code_reads_is_known() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    loss = torch.compile(one, backend="aot_eager")(torch.randn(4, 3)).sum()
    assert leads_to([loss], ids(one))
    assert not leads_to([loss], ids(other))
