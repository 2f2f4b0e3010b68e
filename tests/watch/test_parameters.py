"""Parameters: shared, frozen, late, lazy, complex, sparse; each by its one true name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.finding import Severity
from gradlint.trace import Trace
from gradlint.watching import Watcher
from gradlint.watching.cadence import Look
from tests.watch.ledger import BOTH, STEPS, Ledger, at, got, looks
from tests.watch.loops import unfailed


def run(
    model: nn.Module,
    loss_of: Callable[[], Tensor],
    every: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    between: Callable[[int, torch.optim.Optimizer], None] = lambda step, optimizer: None,
) -> Trace:
    """Train with SGD, every step written down; `between` runs before each step's forward."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05)
    ledger = Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for step in range(1, STEPS + 1):
            between(step, optimizer)
            optimizer.zero_grad()
            loss_of().backward()
            ledger.before()
            optimizer.step()
            ledger.after()
    return ledger.agrees(watcher)


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(tokens)).tanh())


@BOTH
def test_a_tied_weight_is_one_parameter_with_one_gradient(every: Any) -> None:
    model = Tied()
    tokens = torch.randint(0, 11, (4, 5))

    def loss_of() -> Tensor:
        return nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    trace = run(model, loss_of, every)

    tied = trace.parameters["embed.weight"]
    assert "head.weight" not in trace.parameters
    assert tied.aliases == ("head.weight",)
    assert at(trace, "gradient_norm", "head.weight") == {}
    assert trace.modules["head"].calls == 1
    assert all(len(values) == 1 for values in at(trace, "gradient_norm", "embed.weight").values())


@BOTH
def test_a_layer_used_twice_by_two_names_is_one_parameter(every: Any) -> None:
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(6, 1))
    x = torch.randn(8, 6)

    trace = run(model, lambda: model(x).square().mean(), every)

    assert sorted(trace.parameters) == ["0.bias", "0.weight", "3.bias", "3.weight"]
    kinds = looks(STEPS)
    calls = {step: len(values) for step, values in at(trace, "activation_std", "0").items()}
    assert calls == {s: 2 if s in kinds[Look.FULL] else 1 for s in range(1, STEPS + 1)}


@BOTH
def test_a_frozen_parameter_has_no_gradient_and_does_not_move(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    x = torch.randn(8, 6)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every, optimizer=optimizer)

    assert {path for _, path in got(trace, "gradient_norm")} == {"2.weight", "2.bias"}
    frozen = at(trace, "frozen_change", "0.weight")
    assert frozen
    assert all(values == [0.0] for values in frozen.values())
    assert not trace.parameters["0.weight"].requires_grad
    assert not trace.parameters["0.weight"].in_optimizer
    assert trace.parameters["2.weight"].in_optimizer


@BOTH
def test_a_frozen_parameter_that_moves_is_told(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    x = torch.randn(8, 6)

    def move(step: int, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            model[0].weight.mul_(1.5)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every, between=move)

    moved = at(trace, "frozen_change", "0.weight")
    steps = looks(STEPS)[Look.FULL]
    assert sorted(moved) == steps[1:]
    for before, now in itertools.pairwise(steps):
        assert abs(moved[now][0] - (1.5 ** (now - before) - 1)) < 1e-4


@BOTH
def test_a_layer_unfrozen_later_is_followed_from_then_on(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    x = torch.randn(8, 6)

    def unfreeze(step: int, optimizer: torch.optim.Optimizer) -> None:
        if step == 5:
            model[0].requires_grad_(True)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every, between=unfreeze)

    assert sorted(at(trace, "gradient_norm", "0.weight")) == [5, 6, 7, 8, 9]
    assert trace.parameters["0.weight"].requires_grad


@BOTH
def test_a_layer_added_later_is_followed_once_the_next_full_look_finds_it(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
    x = torch.randn(8, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Watcher(model, optimizer, every=every) as watcher:
        for step in range(1, STEPS + 1):
            if step == 5:
                model[1] = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
                optimizer.add_param_group({"params": model[1].parameters(), "lr": 0.01})
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
    trace = watcher.trace()

    assert sorted(at(trace, "gradient_norm", "1.0.weight")) == [6, 7, 8, 9]
    assert sorted(at(trace, "activation_std", "1.0")) == [6, 7, 8, 9]
    assert trace.parameters["1.0.weight"].in_optimizer
    assert trace.modules["1.0"].kind == "Linear"


@BOTH
def test_lazy_layers_are_followed_once_they_know_their_shape(every: Any) -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(1))
    x = torch.randn(8, 6)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every)

    assert sorted(at(trace, "gradient_norm", "0.weight")) == list(range(1, STEPS + 1))
    assert sorted(at(trace, "activation_std", "2")) == list(range(1, STEPS + 1))
    assert tuple(trace.parameters["0.weight"].shape) == (8, 6)
    assert trace.modules["0"].kind == "Linear"


@BOTH
def test_complex_parameters_have_real_norms(every: Any) -> None:
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 8, dtype=torch.complex64)
            self.head = nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(x.to(torch.complex64)).abs())

    model = Wave()
    x = torch.randn(8, 6)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every)

    assert sorted(at(trace, "gradient_norm", "inner.weight")) == list(range(1, STEPS + 1))


@BOTH
def test_sparse_gradients_have_the_norms_of_dense_ones(every: Any) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(50, 6, sparse=True), nn.Linear(6, 1))
    tokens = torch.randint(0, 50, (16,))  # some of them twice

    trace = run(model, lambda: (model(tokens) - 1).square().mean(), every)

    assert sorted(at(trace, "gradient_norm", "0.weight")) == list(range(1, STEPS + 1))
    assert len(tokens.unique()) < 16


@BOTH
def test_a_frozen_model_that_is_no_part_of_the_training_is_left_out(every: Any) -> None:
    teacher, student = nn.Linear(6, 2), nn.Linear(6, 2)
    teacher.requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    x = torch.randn(8, 6)
    with Watcher({"teacher": teacher, "student": student}, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            (student(x) - teacher(x)).square().mean().backward()
            optimizer.step()
    trace = watcher.trace()

    assert sorted(trace.parameters) == ["bias", "weight"]
    assert watcher.report.verdict == "healthy"


@pytest.mark.parametrize("to_none", [False, True])
def test_what_is_frozen_late_and_moves_on_is_seen_by_light_looks(to_none: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    x = torch.randn(64, 8)
    y = x[:, :3].argmax(1)

    with Watcher(model, optimizer, every=4) as watcher:
        for step in range(80):
            model[0].requires_grad_(step < 50)
            optimizer.zero_grad(set_to_none=to_none)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    unfailed(watcher)
    moved = [o.step for o in watcher.trace().of("frozen_change").at("0.weight") if o.value > 0]
    assert moved[:5] == ([] if to_none else [52, 56, 60, 64, 68])
    found = [f.code for f in watcher.report.findings if f.severity is Severity.ERROR]
    assert found == ([] if to_none else ["GL706"])
