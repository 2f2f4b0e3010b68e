"""Compiled models: as many graphs as without us, the same numbers, and said to be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.trace import Trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH, STEPS, Ledger
from tests.watch.loops import unfailed


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Graphs:
    """A backend that counts what it is given, and runs it as it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.second = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


def train(how: str, watch_at: str, every: Any) -> tuple[nn.Module, int, Trace | None, list[float]]:
    """Train a compiled model; watch it from the start, from its second step, or never."""
    torch.manual_seed(14)
    net = Net()
    graphs = Graphs()
    if how == "wrapper":
        called: Any = torch.compile(net, backend=graphs)
    elif how == "in place":
        net.compile(backend=graphs)
        called = net
    else:  # a function around it
        called = net
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    ledger, losses = Ledger(net), []

    def forward(inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(called(inputs), targets)

    compiled = torch.compile(forward, backend=graphs) if how == "a part" else forward

    def step() -> None:
        optimizer.zero_grad()
        loss = compiled(x, y)
        loss.backward()
        losses.append(float(loss.detach()))
        ledger.before()
        optimizer.step()
        ledger.after()

    if watch_at == "never":
        for _ in range(STEPS):
            step()
        return net, graphs.count, None, losses
    if watch_at == "later":
        step()
        ledger.__init__(net)  # type: ignore[misc]
    with Watcher(called, optimizer, every=every) as watcher:
        for _ in range(STEPS - (watch_at == "later")):
            step()
    unfailed(watcher)
    trace = ledger.agrees(watcher)
    return net, graphs.count, trace, losses


@BOTH
@pytest.mark.parametrize("watch_at", ["first", "later"])
@pytest.mark.parametrize("how", ["wrapper", "in place"])
def test_a_compiled_model_is_one_graph_and_its_parameters_are_seen(
    how: str, watch_at: str, every: Any
) -> None:
    bare, graphs, _, bare_losses = train(how, "never", every)
    net, count, trace, losses = train(how, watch_at, every)

    assert graphs == 1
    assert count <= 3  # torch guards the number of hooks: none, a light look's, a full one's
    assert losses == bare_losses
    assert torch.equal(net.first.weight, bare.first.weight)
    assert trace is not None
    assert trace.facts.loop.compiled == ("",)
    assert set(trace.parameters) == {
        f"{layer}.{kind}" for layer in ("first", "second") for kind in ("weight", "bias")
    }
    assert "activation_std" not in {o.metric for o in trace if o.site.path == "first"}
    seen = [o.value for o in trace.of("loss").training]
    assert seen == losses[-len(seen) :]


@BOTH
def test_a_compiled_model_is_judged_without_inventing_what_was_not_seen(every: Any) -> None:
    torch.manual_seed(15)
    net = Net()
    called = torch.compile(net, backend="aot_eager")
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with Watcher(called, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(called(x), y).backward()
            optimizer.step()

    unfailed(watcher)
    assert watcher.report.verdict == "healthy"
    assert "GL001" not in {f.code for f in watcher.report.findings}


@BOTH
def test_a_compiled_function_around_the_model_is_compiled_once_for_each_kind_of_look(
    every: Any,
) -> None:
    bare, graphs, _, bare_losses = train("a part", "never", every)
    net, count, trace, losses = train("a part", "first", every)

    assert graphs == 1
    assert count <= 3  # torch guards the number of hooks: none, a light look's, a full one's
    assert losses == bare_losses
    assert torch.equal(net.first.weight, bare.first.weight)
    assert trace is not None
    assert list(trace.of("loss").training.values) == losses


@BOTH
def test_wrappers_names_are_stripped(every: Any) -> None:
    torch.manual_seed(16)
    net = Net()
    wrapped = nn.DataParallel(net)  # without a device it hands on
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    ledger = Ledger(net)
    with Watcher(torch.compile(wrapped, backend="eager"), optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(wrapped(x), y).backward()
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher)
    assert sorted(trace.parameters) == [
        "first.bias",
        "first.weight",
        "second.bias",
        "second.weight",
    ]
