"""Memory: bounded however long a loop runs, and nothing of the user's is kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.watching import Watcher
from gradlint.watching.records import POINTS, ROWS
from tests.watch.ledger import BOTH
from tests.watch.loops import plain, unfailed


def tiny() -> Any:
    torch.manual_seed(19)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    return plain(model, torch.randn(4, 2), torch.randint(0, 2, (4,)), lr=1e-3)


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def kept(watcher: Watcher) -> int:
    """Count what a watcher has written down."""
    loop = watcher.loop
    observer, records = loop.observer, loop.records
    return (
        len(observer.observations) + len(observer.flows) + len(observer.events)
        + sum(len(row.values) for row in records.rows)
        + sum(len(points) for points in records.series.values())
        + len(loop.optimizers.stepped) + len(loop.clips.tensors) + len(loop.scaling._skipped_at)
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("every", ["auto", 10])
def test_twenty_thousand_steps_leave_no_more_than_the_bounds(every: Any) -> None:
    training = tiny()
    sizes: list[int] = []
    alive: list[int] = []
    with Watcher(training.model, training.optimizer, every=every) as watcher:
        for step in range(20_000):
            training.step()
            if step % 5000 == 4999:
                sizes.append(kept(watcher))
                alive.append(tensors())

    unfailed(watcher)
    records = watcher.loop.records
    assert len(records.rows) <= ROWS
    assert max(len(points) for points in records.series.values()) <= POINTS
    assert len(watcher.loop.observer.observations) < 10_000
    assert max(alive) - min(alive) < 50
    assert sizes[-1] < 60_000
    steps = watcher.trace().of("loss").training.steps
    assert steps[0] == 1
    assert steps[-1] == 20_000
    assert watcher.loop.steps == 20_000


@BOTH
def test_no_tensor_of_a_step_outlives_it(every: Any) -> None:
    training = tiny()
    with Watcher(training.model, training.optimizer, every=every) as watcher:
        for _ in range(12):
            training.step()
        first = tensors()
        for _ in range(60):
            training.step()
        assert tensors() - first < 30  # the samples of one open look
    unfailed(watcher)


@BOTH
def test_an_activation_is_freed_when_its_step_is_over(every: Any) -> None:
    training = tiny()
    seen: list[weakref.ref[Tensor]] = []
    with (
        Watcher(training.model, training.optimizer, every=every) as watcher,
        training.model[0].register_forward_hook(lambda m, a, out: seen.append(weakref.ref(out))),
    ):
        for _ in range(12):
            training.step()
            training.optimizer.zero_grad()
            assert [ref for ref in seen if ref() is not None] == []
    unfailed(watcher)


@BOTH
def test_an_optimizer_made_anew_for_every_step_costs_no_more_than_one(every: Any) -> None:
    training = tiny()
    x, y = torch.randn(4, 2), torch.randint(0, 2, (4,))
    with Watcher(training.model, every=every) as watcher:
        for _ in range(200):
            optimizer = torch.optim.SGD(training.model.parameters(), lr=1e-3)
            optimizer.zero_grad()
            nn.functional.cross_entropy(training.model(x), y).backward()
            optimizer.step()

    unfailed(watcher)
    trace = watcher.trace()
    loop = trace.facts.loop
    assert (loop.steps, loop.streams) == (200, 1)
    assert len(loop.optimizers) <= 2
    assert len(trace.of("gradient_norm").initial.at("0.weight").values) == 1
    assert len(trace.of("loss").training.values) == 200
    # Full looks grow apart as in any other loop.
    assert len({f.step for f in trace.facts.flows}) < 20


@BOTH
def test_a_loop_that_raises_in_every_other_step_keeps_nothing_of_it(every: Any) -> None:
    training = tiny()

    def fail(*_: Any) -> None:
        raise RuntimeError("again")

    with Watcher(training.model, training.optimizer, every=every) as watcher:
        counts: list[int] = []
        for step in range(60):
            with (
                training.model[0].weight.register_hook(fail),
                pytest.raises(RuntimeError, match="again"),
            ):
                training.step()
            training.step()
            if step in (20, 50):
                counts.append(tensors())

    unfailed(watcher)
    assert counts[1] - counts[0] < 30
    assert watcher.loop.steps == 60
