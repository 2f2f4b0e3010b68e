"""The short way through steps that nobody looks at keeps what the usual way keeps."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from gradlint.watching import Watcher
from gradlint.watching.loop import Loop
from gradlint.watching.resting import Resting

STEPS = 160


class Training:
    """A small regression, step by step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.x = torch.randn(STEPS + 1, 16, 4)

    def loss(self, number: int) -> Tensor:
        return (self.model(self.x[number]) - self.x[number, :, :1]).square().mean()

    def plain(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.loss(number).backward()
        self.optimizer.step()

    def decayed(self, number: int) -> None:
        self.plain(number)
        self.optimizer.param_groups[0]["lr"] *= 0.99

    def accumulated(self, number: int) -> None:
        self.optimizer.zero_grad()
        for _ in range(1 + number % 3):
            self.loss(number).backward()
        self.optimizer.step()

    def clipped_at_times(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.loss(number).backward()
        if number % 5 == 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1e-3)
        self.optimizer.step()

    def two_losses(self, number: int) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward([self.loss(number), self.loss(number - 1)])
        self.optimizer.step()

    def loss_of_shape_one(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.loss(number).reshape(1).backward()
        self.optimizer.step()

    def skipped_at_times(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.loss(number).backward()
        if number % 4:
            self.optimizer.step()

    def stepped_twice_at_times(self, number: int) -> None:
        self.plain(number)
        if number % 7 == 0:
            self.optimizer.step()

    def raising_at_times(self, number: int) -> None:
        self.optimizer.zero_grad()
        if number % 6 == 0:
            loss = self.loss(number)
            loss.backward()
            with contextlib.suppress(RuntimeError):
                loss.backward()
        self.loss(number).backward()
        self.optimizer.step()

    def backward_within_backward(self, number: int) -> None:
        self.optimizer.zero_grad()
        output = self.model(self.x[number])
        if number % 3 == 0:
            output.register_hook(lambda gradient: self.again(number))
        output.square().mean().backward()
        self.optimizer.step()

    def again(self, number: int) -> None:
        with torch.enable_grad():
            self.loss(number).backward()

    def another_optimizer_later(self, number: int) -> None:
        self.plain(number)
        if number == 80:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def scaled_later(self, number: int) -> None:
        if number < 80:
            self.plain(number)
            return
        if number == 80:
            self.scaler = GradScaler("cpu", init_scale=8.0)
        self.optimizer.zero_grad()
        self.scaler.scale(self.loss(number)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def not_finite_at_the_end(self, number: int) -> None:
        if number == 140:
            with torch.no_grad():
                self.model[2].bias.fill_(torch.nan)
        self.plain(number)


def watched(step: str) -> Loop:
    training = Training()
    with Watcher(training.model, every=50) as watcher:
        for number in range(1, STEPS + 1):
            getattr(training, step)(number)
    assert watcher.loop.failure is None
    return watcher.loop


def kept(loop: Loop) -> dict[str, object]:
    """What a report is made of, as text: NaN equals itself there."""
    return {
        "steps": loop.steps,
        "backwards": loop.backwards,
        "series": {(m, s.path): repr(points) for (m, s), points in loop.records.series.items()},
        "events": [(e.name, e.step, e.module) for e in loop.observer.events],
        "optimizers": [(k.kind, k.steps, k.first_at, k.last_at) for k in loop.optimizers],
        "raised": repr(loop.raised),
        "depth": loop.backward_depth,
    }


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many steps took the short way."""
    counted: list[int] = []
    step_ended = Resting.step_ended

    def counting(self: Resting, optimizer: torch.optim.Optimizer) -> bool:
        short = step_ended(self, optimizer)
        counted.append(short)
        return short

    monkeypatch.setattr(Resting, "step_ended", counting)
    return lambda: sum(counted)


@pytest.mark.parametrize(
    "step", [n for n in vars(Training) if n not in ("loss", "again") and n[0] != "_"]
)
def test_either_way_keeps_the_same(
    step: str, monkeypatch: pytest.MonkeyPatch, taken: Callable[[], int]
) -> None:
    short = kept(watched(step))
    went = taken()
    monkeypatch.setattr(Loop, "_short_way", lambda self, interval: None)

    assert short == kept(watched(step))
    assert taken() == went
    if step in ("plain", "decayed", "clipped_at_times", "skipped_at_times"):
        assert went > 0.4 * (STEPS - 50)


def test_who_asks_for_every_step_is_told_of_every_step() -> None:
    training = Training()
    told: list[int] = []
    with Watcher(training.model, every=50, on_step=lambda w: told.append(w.loop.steps)):
        for number in range(1, STEPS + 1):
            training.plain(number)

    assert told == list(range(1, STEPS + 1))


def test_a_mistake_of_the_short_way_ends_the_watching_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Resting, tensors: object) -> bool:
        raise RuntimeError("ours")

    monkeypatch.setattr(Resting, "backward_begins", broken)
    training = Training()
    with Watcher(training.model, every=50) as watcher:
        for number in range(1, STEPS + 1):
            training.plain(number)

    assert str(watcher.loop.failure) == "ours"


def test_the_short_way_keeps_no_optimizer_alive() -> None:
    training = Training()
    with Watcher(training.model, every=50) as watcher:
        for number in range(1, 60):
            training.plain(number)
        gone = weakref.ref(training.optimizer)
        del training.optimizer
        gc.collect()

        assert gone() is None
        assert watcher.loop.failure is None
