"""Learning rates of every step, whatever turns them, and optimizers built again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from gradlint.watching import Watcher
from gradlint.watching.facts_of import schedulers_of
from gradlint.watching.optimizers import Known
from tests.watch.ledger import BOTH, STEPS, Ledger
from tests.watch.test_optimizers import network, run


@BOTH
def test_an_optimizer_built_again_goes_on_in_the_same_loop(every: Any) -> None:
    model, loss_of = network()
    ledger, losses = Ledger(model), []
    with Watcher(model, every=every) as watcher:
        for step in range(STEPS):
            if step in (0, 5):
                optimizer = torch.optim.SGD(model.parameters(), lr=0.05 if step else 0.1)
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            losses.append(float(loss.detach()))
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher)
    assert trace.facts.loop.streams == 1
    assert list(trace.of("loss").training.values) == losses
    rates = {o.step: o.value for o in trace.of("learning_rate").training}
    assert rates == {step: 0.1 if step <= 5 else 0.05 for step in range(1, STEPS + 1)}
    assert watcher.report.verdict == "healthy"


@BOTH
@pytest.mark.parametrize("kind", ["OneCycleLR", "LambdaLR", "ReduceLROnPlateau"])
def test_the_rate_of_every_step_is_known(kind: str, every: Any) -> None:
    model, loss_of = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler: Any = {
        "OneCycleLR": lambda: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1),
        "LambdaLR": lambda: lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 5)),
        "ReduceLROnPlateau": lambda: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
    }[kind]()
    rates: list[float] = []

    def turn() -> None:
        rates.append(before[-1])
        scheduler.step(*([1.0] if kind == "ReduceLROnPlateau" else []))
        before.append(optimizer.param_groups[0]["lr"])

    before = [optimizer.param_groups[0]["lr"]]
    trace, _, _ = run(model, loss_of, optimizer, every, after=turn)

    assert list(trace.of("learning_rate").training.values) == pytest.approx(rates)
    assert trace.facts.loop.schedulers == (kind,)


@pytest.mark.parametrize("asked", [False, True])
def test_a_scheduler_is_found_by_the_optimizer_it_refers_to(asked: bool) -> None:
    model = nn.Linear(3, 2)
    optimizer, other = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    schedulers = (
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
        torch.optim.lr_scheduler.StepLR(other, 10),
    )
    if asked:
        assert all(vars(scheduler)["last_epoch"] == 0 for scheduler in schedulers)

    assert schedulers_of([Known(optimizer)]) == {"ReduceLROnPlateau": None}
