"""Optimizers of every kind: their steps are the loop's, each counted once and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.trace import Trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH, STEPS, Ledger, at, near


def network() -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(8)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def run(
    model: nn.Module, loss_of: Callable[[], Tensor], optimizer: Any, every: Any, **how: Any
) -> tuple[Trace, list[float], Watcher]:
    """Train as usual, every step written down; `after` runs at its end."""
    ledger, losses = Ledger(model), []
    after = how.pop("after", lambda: None)
    with Watcher(model, how.pop("given", optimizer), every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            losses.append(float(loss.detach()))
            ledger.before()
            optimizer.step()
            ledger.after()
            after()
    trace = ledger.agrees(watcher)
    assert list(trace.of("loss").training.values) == losses
    return trace, losses, watcher


class Sign(torch.optim.Optimizer):
    """A user's own: moves every entry by the same amount."""

    def __init__(self, params: Iterable[nn.Parameter]) -> None:
        super().__init__(params, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad.sign(), alpha=-group["lr"])


ORDINARY: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "foreach AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "capturable-like rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "own": Sign,
}


@BOTH
@pytest.mark.parametrize("kind", ORDINARY)
def test_the_true_update_is_measured(kind: str, every: Any) -> None:
    model, loss_of = network()
    optimizer = ORDINARY[kind](list(model.parameters()))

    trace, _, _ = run(model, loss_of, optimizer, every)

    assert trace.facts.loop.optimizers == (type(optimizer).__name__,)
    assert all(p.in_optimizer for p in trace.parameters.values())
    rate = 0.05 if kind == "SGD" else 0.01
    rates = trace.of("learning_rate").training.values
    assert list(rates) == pytest.approx([rate] * len(rates))


class Lookahead(torch.optim.Optimizer):
    """An optimizer around another, which it steps from inside its own step."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        self.slow = [p.detach().clone() for g in inner.param_groups for p in g["params"]]
        self.count = 0
        super().__init__([p for g in inner.param_groups for p in g["params"]], {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.inner.step()
        self.count += 1
        if self.count % 3 == 0:
            fast = [p for g in self.param_groups for p in g["params"]]
            for slow, p in zip(self.slow, fast, strict=True):
                slow.add_(p - slow, alpha=0.5)
                p.copy_(slow)


class Plain:
    """A wrapper that is no optimizer at all, such as a framework's."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.optimizer.step()


@BOTH
@pytest.mark.parametrize("given", ["the wrapper", "nothing"])
@pytest.mark.parametrize("wrap", [Lookahead, Plain])
def test_a_wrapped_optimizers_step_is_one_step(wrap: Any, given: str, every: Any) -> None:
    model, loss_of = network()
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.05))

    trace, _, _ = run(
        model, loss_of, optimizer, every, given=optimizer if given == "the wrapper" else None
    )

    assert trace.facts.loop.optimizers == ("Lookahead" if wrap is Lookahead else "SGD",)


@BOTH
def test_accelerates_optimizer_is_the_one_inside(every: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    model, loss_of = network()
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = accelerator.prepare(torch.optim.Adam(model.parameters(), lr=0.01))

    trace, _, _ = run(model, loss_of, optimizer, every)

    assert trace.facts.loop.optimizers == ("Adam",)


@BOTH
@pytest.mark.parametrize("given", [True, False])
def test_lbfgs_closures_are_one_step_each(given: bool, every: Any) -> None:
    model, loss_of = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    first: list[float] = []
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        losses.append(float(loss.detach()))
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    with Watcher(model, optimizer if given else None, every=every) as watcher:
        for step in range(STEPS):
            losses: list[float] = []
            optimizer.step(closure)
            first.append(losses[0])
            if step == 0:
                moved = [
                    float((p.detach() - old).norm() / old.norm())
                    for p, old in zip(model.parameters(), before, strict=True)
                ]

    trace = watcher.trace()
    assert trace.facts.loop.steps == STEPS
    assert trace.facts.loop.backwards == calls > STEPS
    assert list(trace.of("loss").training.values) == pytest.approx(first)
    assert at(trace, "update_to_weight_ratio", "0.weight")[1] == [pytest.approx(moved[0], rel=0.02)]
    assert watcher.report.verdict == "healthy"


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimization: climbs, takes the gradient there, steps from below."""

    def __init__(self, params: Iterable[nn.Parameter]) -> None:
        super().__init__(params, {"rho": 0.05, "lr": 0.05})
        self.base = torch.optim.SGD(self.param_groups, lr=0.05)

    @torch.no_grad()
    def first_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.detach().clone()
            p.add_(p.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["old"])
        self.base.step()

    def step(self, closure: Any = None) -> None:
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


@BOTH
@pytest.mark.parametrize("style", ["two methods", "closure"])
def test_sharpness_aware_steps_are_one_each(style: str, every: Any) -> None:
    model, loss_of = network()
    optimizer = SAM(model.parameters())
    ledger, first = Ledger(model), []

    def closure() -> None:
        loss_of().backward()
        if style == "two methods":
            ledger.before()

    with Watcher(model, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            first.append(float(loss.detach()))
            if style == "closure":
                ledger.before()
                optimizer.step(closure)
            else:
                optimizer.first_step()
                closure()
                optimizer.second_step()
            ledger.after()

    trace = watcher.trace()
    assert trace.facts.loop.steps == STEPS
    assert trace.facts.loop.backwards == 2 * STEPS
    seen = {o.step for o in trace.of("total_gradient_norm").training}
    totals = {o.step: o.value for o in trace.of("total_gradient_norm").training}
    assert totals == near(ledger.total, seen, 1e-5)
    if style == "closure":
        assert list(trace.of("loss").training.values) == pytest.approx(first)
    assert watcher.report.verdict == "healthy"
