"""Compiled models: as many graphs as without us, the same numbers, and said to be compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.finding import Severity
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


class Outer(nn.Module):
    """A model of which one part is compiled."""

    def __init__(self, backend: str, *, wrapped: bool) -> None:
        super().__init__()
        self.trunk: Any = torch.compile(Net(), backend=backend) if wrapped else Net()
        if not wrapped:
            self.trunk.compile(backend=backend)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def compiled_in(how: str, backend: str) -> tuple[nn.Module, Any, str]:
    """Return what is watched, what is called, and the path of what is compiled."""
    if how.startswith("a part"):
        model = Outer(backend, wrapped="wrapped" in how)
        return model, model, "trunk"
    net = Net()
    if how == "in place":
        net.compile(backend=backend)
        return net, net, ""
    if how == "a function":
        return net, torch.compile(lambda x: net(x), backend=backend), ""
    called = torch.compile(net, backend=backend)
    return (net if how == "around it" else called), called, ""


@BOTH
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(
    ("how", "backend"),
    [
        (how, backend)
        for how in ("wrapper", "in place", "around it", "a part", "a part wrapped", "a function")
        for backend in ("eager", "aot_eager")
        if (how, backend) != ("a function", "eager")  # leaves no trace of itself
    ],
)
def test_what_is_compiled_is_said_and_what_ran_before_the_hooks_is_blind(
    how: str, backend: str, before: int, every: Any
) -> None:
    torch.manual_seed(17)
    watched, called, place = compiled_in(how, backend)
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.Adam(watched.parameters(), lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(called(x), y).backward()
        optimizer.step()

    for _ in range(before):
        step()
    with Watcher(watched, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            step()

    unfailed(watcher)
    loop = watcher.trace().facts.loop
    assert loop is not None
    assert loop.compiled == (place,)
    assert loop.blind == ((place,) if before else ())
    (said,) = [f for f in watcher.report.findings if f.code == "GL002"]
    assert said.severity is (Severity.WARNING if before else Severity.NOTE)


@BOTH
def test_what_is_not_compiled_is_not_blind_though_it_ran_before(every: Any) -> None:
    net, other = Net(), torch.compile(Net(), backend="eager")
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    other(x).sum().backward()
    net(x).sum().backward()
    with Watcher(net, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    loop = watcher.trace().facts.loop
    assert loop is not None
    assert (loop.compiled, loop.blind) == ((), ())
