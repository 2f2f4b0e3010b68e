"""Graphs of later phases, and of the other side of a loop: what is kept of them, and judged."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from gradlint.finding import Severity
from gradlint.rules._later import phases
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from gradlint.watching.later import MOST
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

PHASE = 50


class Pool(nn.Module):
    """Attention that pools tokens; over the positions where `axis` is 1."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.score = nn.Linear(8, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return (softmax(self.score(tokens), dim=self.axis) * tokens).sum(1)


class Student(nn.Module):
    def __init__(self, axis: int, *, dealt: bool = False) -> None:
        super().__init__()
        self.dealt = dealt
        self.embed = nn.Linear(4, 8)
        self.pool = Pool(axis)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.dealt:
            n, t, _ = x.shape
            return self.fc(self.embed(x).relu().view(t, n, 8).mean(0))
        return self.fc(self.pool(self.embed(x).relu()))


class Slots(nn.Module):
    """Scores of a batch that is one bag: its instances compete."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(20, 8)
        self.score = nn.Linear(8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.flatten(1)).relu()
        return self.fc((softmax(self.score(h), dim=0) * h).sum(0, keepdim=True))


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.score = nn.Linear(8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.transpose(0, 1)).relu()
        return self.fc((softmax(self.score(h), dim=0) * h).sum(0))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(24, 5, 4)
    return x, x.mean(1)[:, :3].argmax(1)


def teacher() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def distilled(s: Tensor, t: Tensor, y: Tensor) -> Tensor:
    divergence = kl_div(log_softmax(s, 1), softmax(t, 1), reduction="batchmean")
    return 0.7 * divergence + 0.3 * cross_entropy(s, y)


def labels_alone(s: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(s, y)


def one_label(s: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(s, y[:1])


def contrasted(s: Tensor, t: Tensor, y: Tensor) -> Tensor:
    scores = s @ t.detach().T
    own = torch.arange(len(scores))
    return -(softmax(scores, 0).log()[own, own]).mean() + cross_entropy(scores, own)


def watched(
    student: Callable[[], nn.Module], loss: Loss, every: Any = "auto", *, last: bool = False
) -> Watcher:
    """Train a teacher, then a student; with `last` the teacher is asked after it."""
    torch.manual_seed(5)
    x, y = data()
    first, second = teacher(), student()
    with Watcher(discover=True, every=every) as watcher:
        optimizer = torch.optim.Adam(first.parameters(), 1e-2)
        for _ in range(PHASE):
            optimizer.zero_grad()
            cross_entropy(first(x), y).backward()
            optimizer.step()
        first.requires_grad_(False)
        optimizer = torch.optim.Adam(second.parameters(), 1e-2)
        for _ in range(PHASE):
            optimizer.zero_grad()
            t = None if last else first(x)
            s = second(x)
            loss(s, first(x) if t is None else t, y).backward()
            optimizer.step()
    unfailed(watcher)
    return watcher


def loud(watcher: Watcher) -> list[tuple[str, str | None]]:
    return [(f.code, f.module) for f in watcher.report.causes if f.severity > Severity.NOTE]


@BOTH
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("loss", [distilled, labels_alone])
def test_a_student_that_pools_over_the_batch_is_named(loss: Loss, last: bool, every: Any) -> None:
    found = loud(watched(lambda: Student(0), loss, every, last=last))
    assert found[:1] == [("GL113", "second.pool")]


@BOTH
def test_a_student_that_deals_samples_out_anew_is_named(every: Any) -> None:
    found = loud(watched(lambda: Student(1, dealt=True), labels_alone, every))
    assert "GL608" in dict(found)


@BOTH
@pytest.mark.parametrize(
    ("student", "loss"),
    [
        pytest.param(lambda: Student(1), distilled, id="over-the-positions"),
        pytest.param(TimeFirst, labels_alone, id="time-first"),
        pytest.param(Slots, one_label, id="one-bag"),
        pytest.param(lambda: Student(1), contrasted, id="contrasted-in-the-loss"),
    ],
)
def test_a_healthy_student_is_not(student: Callable[[], nn.Module], loss: Loss, every: Any) -> None:
    assert not {"GL113", "GL608"} & set(dict(loud(watched(student, loss, every))))


@BOTH
@pytest.mark.parametrize("last", [False, True])
def test_a_later_graph_is_kept_with_its_own_data(last: bool, every: Any, tmp_path: Path) -> None:
    trace = watched(lambda: Student(1), distilled, every, last=last).trace()
    (seen,) = trace.facts.later
    assert PHASE < seen.step <= PHASE + 2
    assert {op.module.partition(".")[0] for op in seen.operations if op.module} == {"second"}
    assert [t.shape for t in seen.inputs] == [(24, 5, 4)]
    assert [t.shape for t in seen.outputs] == [(24, 3)]
    assert (24,) in [t.shape for t in seen.targets]
    first, later = phases(trace)
    assert first is trace
    assert later.facts.batch_size == 24
    assert "second.pool" in later.modules
    assert not any(path.startswith("first") for path in later.modules)
    write_trace(tmp_path / "run.jsonl", trace)
    assert read_trace(tmp_path / "run.jsonl").facts.later == trace.facts.later


def test_one_network_has_one_graph() -> None:
    torch.manual_seed(6)
    x, y = data()
    net = teacher()
    with Watcher(net, every=1) as watcher:
        for _ in range(2):  # the last layer thaws
            optimizer = torch.optim.Adam(net.parameters(), 1e-2)
            for step in range(12):
                net[3].requires_grad_(step > 5)
                optimizer.zero_grad()
                cross_entropy(net(x), y).backward()
                optimizer.step()
    unfailed(watcher)
    assert not watcher.trace().facts.later


def test_heads_that_take_turns_are_kept_up_to_a_number() -> None:
    torch.manual_seed(7)
    x, y = data()
    body, heads = nn.Linear(20, 16), nn.ModuleList(nn.Linear(16, 3) for _ in range(9))
    net = nn.ModuleDict({"body": body, "heads": heads})
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    with Watcher(net, every=1) as watcher:
        for step in range(40):
            optimizer.zero_grad()
            cross_entropy(heads[step % 9](body(x.flatten(1)).relu()), y).backward()
            optimizer.step()
    unfailed(watcher)
    assert len(watcher.trace().facts.later) == MOST


def test_nothing_of_a_step_is_held_when_it_is_over() -> None:
    torch.manual_seed(8)
    x, y = data()
    net = teacher()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    with Watcher(net, every=1) as watcher:
        for _ in range(3):
            batch = x.clone()
            optimizer.zero_grad()
            out = net(batch)
            cross_entropy(out, y).backward()
            held = weakref.ref(batch), weakref.ref(out)
            del batch, out
            gc.collect()
            assert held[0]() is None
            optimizer.step()
            gc.collect()
            assert held[1]() is None
    unfailed(watcher)
