"""What `run` finds in scripts that do not say what their model is."""

from __future__ import annotations

import threading
import warnings

import torch
from torch import Tensor, nn

from gradlint.watching import Watcher
from tests.watch.loops import unfailed

INPUTS = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
TARGETS = (INPUTS[:, 0] > 0).long()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(8, 16)
        self.back = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.back(torch.relu(self.front(x)))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.front(x)


def train(model: nn.Module, steps: int = 5) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS), TARGETS).backward()
        optimizer.step()


def discovered(*jobs: object) -> Watcher:
    watcher = Watcher(discover=True)
    watcher.start()
    for job in jobs:
        job()  # type: ignore[operator]
    watcher.stop()
    unfailed(watcher)
    return watcher


def test_a_model_that_is_called_is_found_and_a_lone_one_has_no_label() -> None:
    trace = discovered(lambda: train(Net())).trace()

    assert set(trace.parameters) == set(dict(Net().named_parameters()))
    assert trace.facts.loop is not None
    assert trace.facts.loop.steps == 5
    assert trace.of("gradient_norm").at("front.weight").steps[:2] == (0, 1)


def test_a_method_of_a_model_leads_to_the_model() -> None:
    class Coder(Net):
        def loss(self) -> torch.Tensor:
            return self.back(self.encode(INPUTS)).square().mean()

    def job() -> None:
        model = Coder()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model.loss().backward()
            optimizer.step()

    trace = discovered(job).trace()

    assert trace.module_kind("") == "Coder"
    assert trace.modules["front"].calls == 1


def test_a_model_compiled_in_place_is_found_by_what_trains() -> None:
    def job() -> None:
        model = Net()
        model.compile(backend="eager")
        train(model)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = discovered(job).trace()

    assert set(trace.parameters) == set(dict(Net().named_parameters()))
    assert trace.facts.loop is not None
    assert trace.facts.loop.compiled
    assert trace.facts.optimizer is not None
    assert trace.facts.optimizer.foreign == 0


def test_models_after_each_other_keep_their_own_numbers() -> None:
    trace = discovered(lambda: train(Net(), 3), lambda: train(Net(), 4)).trace()

    labels = {path.partition(".")[0] for path in trace.parameters}
    assert len(labels) == 2
    norms = {label: trace.of("gradient_norm").at(f"{label}.front.weight") for label in labels}
    assert sorted(len(found.training) for found in norms.values()) == [3, 4]


def test_a_model_that_stands_where_another_one_stood_is_found_at_its_first_step() -> None:
    """Folds and sweeps build a model after another one is gone: often at the same address."""
    for _ in range(20):
        trace = discovered(*[lambda: train(Net(), 2)] * 4).trace()

        labels = {path.partition(".")[0] for path in trace.parameters}
        norms = [trace.of("gradient_norm").at(f"{label}.front.weight") for label in labels]
        assert [len(found.training) for found in norms] == [2, 2, 2, 2]


def test_an_evaluated_teacher_is_not_the_model() -> None:
    teacher, student = Net(), Net()

    def job() -> None:
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        for _ in range(4):
            with torch.no_grad():
                wanted = teacher(INPUTS)
            optimizer.zero_grad()
            (student(INPUTS) - wanted).square().mean().backward()
            optimizer.step()

    trace = discovered(job).trace()

    assert set(trace.parameters) == set(dict(student.named_parameters()))


def test_of_two_threads_that_train_one_is_watched() -> None:
    def job() -> None:
        threads = [threading.Thread(target=train, args=(Net(), 20)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    watcher = discovered(job)

    assert watcher.loop.steps == 20


class TwoBranches(nn.Module):
    """Compares two inputs by an embedding that somebody put under `no_grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        with torch.no_grad():
            far = (self.embed(one) - self.embed(other)).abs()
        return self.head(far)


def test_a_model_met_within_its_first_forward_has_its_layers_in_order() -> None:
    torch.manual_seed(0)
    model = TwoBranches()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    one, other, targets = torch.randn(32, 6), torch.randn(32, 6), torch.randint(0, 2, (32,))
    with Watcher({}, discover=True) as watcher:
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(one, other), targets).backward()
            optimizer.step()
    modules = {path.removeprefix("model."): m for path, m in watcher.trace().modules.items()}

    assert modules["embed.0"].depth < modules["embed.2"].depth < modules["head"].depth
    assert [f.message for f in watcher.report.findings if f.code == "GL701"] == [
        "4 trainable parameters of embed received no gradient: its output is cut from the graph "
        "before head"
    ]
