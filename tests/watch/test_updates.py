"""Updates without an optimizer's step of the usual kind: by hand, and from inside backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.watching import Watcher
from tests.watch.ledger import BOTH, STEPS, Ledger, at, got, near


def network() -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(9)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def through_data(model: nn.Module) -> None:
    for p in model.parameters():
        p.data.add_(p.grad, alpha=-0.1)


def under_no_grad(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad


def data_replaced(model: nn.Module) -> None:
    for p in model.parameters():
        p.data = p.data - 0.1 * p.grad


def set_to_none(model: nn.Module) -> None:
    for p in model.parameters():
        p.grad = None


def zeroed_data(model: nn.Module) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.zero_()


def zeroed_by_module(model: nn.Module) -> None:
    model.zero_grad()


@BOTH
@pytest.mark.parametrize("clear", [set_to_none, zeroed_data, zeroed_by_module])
@pytest.mark.parametrize("cleared_after", [True, False])
@pytest.mark.parametrize("update", [through_data, under_no_grad, data_replaced])
def test_updates_by_hand_are_steps(
    update: Any, clear: Any, cleared_after: bool, every: Any
) -> None:
    model, loss_of = network()
    ledger, losses = Ledger(model), []
    with Watcher(model, every=every) as watcher:
        for _ in range(STEPS):
            if not cleared_after:
                clear(model)
            loss = loss_of()
            loss.backward()
            losses.append(float(loss.detach()))
            ledger.before()
            update(model)
            ledger.after()
            if cleared_after:
                clear(model)

    trace = ledger.agrees(watcher)
    loop = trace.facts.loop
    assert loop.by_hand
    assert (loop.steps, loop.backwards, loop.optimizers) == (STEPS, STEPS, ())
    assert list(trace.of("loss").training.values) == losses
    assert set(trace.of("carried_gradient_norm").training.values) == {0.0}
    assert watcher.report.verdict == "healthy"


@BOTH
def test_a_functional_update_is_a_step(every: Any) -> None:
    model, _ = network()
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    losses: list[float] = []
    with Watcher(model, every=every) as watcher:
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for p, g in zip(model.parameters(), gradients, strict=True):
                    p -= 0.1 * g
            loss_for_one = model(x).square().mean()
            loss_for_one.backward()  # what a loop without one would not show
            model.zero_grad()

    trace = watcher.trace()
    assert trace.facts.loop.backwards == STEPS
    assert "GL704" not in {f.code for f in watcher.report.findings}


@BOTH
def test_an_optimizer_inside_backward_is_as_many_steps_as_it_makes(every: Any) -> None:
    model, loss_of = network()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def update(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(update) for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]
    losses: list[float] = []
    with Watcher(model, every=every) as watcher:
        for _ in range(STEPS):
            loss = loss_of()
            loss.backward()
            losses.append(float(loss.detach()))

    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert losses[-1] < losses[0]
    assert watcher.loop.failure is None
    trace = watcher.trace()
    assert trace.facts.loop.backwards == STEPS
    assert all(p.in_optimizer for p in trace.parameters.values())
    assert trace.facts.loop.streams == 1
    assert [o.value for o in trace.of("loss").training] == losses
    assert watcher.report.verdict == "healthy"
    for handle in handles:
        handle.remove()


@BOTH
def test_an_update_in_the_gradients_own_hook_and_a_later_step_are_told_apart(every: Any) -> None:
    model, loss_of = network()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.05)
    ledger = Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            model.zero_grad()
            loss_of().backward()
            with torch.no_grad():
                for p in model[0].parameters():
                    p -= 0.05 * p.grad  # the trunk by hand, the head by its optimizer
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = watcher.trace()
    assert trace.facts.loop.steps == STEPS
    seen = {o.step for o in trace.of("gradient_norm").training}
    assert got(trace, "gradient_norm") == near(ledger.gradient, seen, 1e-5)
    assert len(at(trace, "update_to_weight_ratio", "2.weight")) == STEPS


@BOTH
def test_a_learning_rate_of_zero_is_a_step_that_moves_nothing(every: Any) -> None:
    model, loss_of = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()

    trace = watcher.trace()
    assert trace.facts.loop.steps == STEPS
    assert set(trace.of("update_to_weight_ratio").training.values) == {0.0}
    assert set(trace.of("learning_rate").training.values) == {0.0}


@BOTH
def test_weights_that_are_not_contiguous_show_their_update(every: Any) -> None:
    torch.manual_seed(10)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 3))
    model = model.to(memory_format=torch.channels_last)
    model[3].weight = nn.Parameter(model[3].weight.detach().t().contiguous().t())
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 3, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger = Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            ledger.before()
            optimizer.step()
            ledger.after()

    assert not model[0].weight.is_contiguous()
    ledger.agrees(watcher)
