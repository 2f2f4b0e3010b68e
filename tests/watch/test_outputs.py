"""Activations: in-place operations, views, every kind of output, many calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.trace import Trace
from gradlint.watching import Watcher
from gradlint.watching.cadence import Look
from tests.watch.ledger import BOTH, STEPS, Ledger, at, looks, norm


def run(model: nn.Module, loss_of: Callable[[], Tensor], every: Any, steps: int = STEPS) -> Trace:
    """Train with SGD, every step of it written down."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger = Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of().backward()
            ledger.before()
            optimizer.step()
            ledger.after()
    return ledger.agrees(watcher)


class Change(nn.Module):
    """Two layers; what happens between them is `change`."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 1)
        self.change = change
        self.true: list[dict[str, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        seen = hidden.detach()
        numbers = {"mean": float(seen.mean()), "max": float(seen.abs().max())}
        numbers["zeros"] = float((seen == 0).float().mean())
        self.true.append(numbers)
        if hidden.requires_grad:
            # The gradient of the layer's own result, whatever becomes of its memory.
            hidden.register_hook(lambda g: numbers.update(gradient=norm(g)))
        return self.second(self.change(hidden))


def add_one(h: Tensor) -> Tensor:
    h += 1
    return h


def relu_of_a_view(h: Tensor) -> Tensor:
    view = h[:, :4]
    view.relu_()
    return h


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "in-place ReLU": lambda h: nn.functional.relu(h, inplace=True),
    "h += 1": add_one,
    "in-place chain": lambda h: h.mul_(2).add_(1).relu_(),
    "a view changed": relu_of_a_view,
    "a view": lambda h: h.view(2, -1, 8).reshape(-1, 8),
    "transposed": lambda h: h.t().contiguous().t(),
    "chunks": lambda h: torch.cat(h.chunk(2, dim=1)[::-1], dim=1),
    "used three times": lambda h: h + h.relu() * h,
}


@BOTH
@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_shows_what_it_returned_whatever_becomes_of_it(change: str, every: Any) -> None:
    model = Change(CHANGES[change])
    x = torch.randn(16, 6)

    trace = run(model, lambda: model(x).square().mean(), every)

    for metric, key in {
        "activation_mean": "mean", "activation_abs_max": "max", "activation_zero_share": "zeros",
        "activation_grad_norm": "gradient",
    }.items():  # fmt: skip
        true = {i + 1: [numbers[key]] for i, numbers in enumerate(model.true)}
        assert at(trace, metric, "first") == {
            step: pytest.approx(values, rel=1e-5, abs=1e-7) for step, values in true.items()
        }


@BOTH
def test_an_in_place_relu_module_shows_its_own_result_and_its_layer_the_one_before(
    every: Any,
) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 1))
    x = torch.randn(16, 6)
    with torch.no_grad():
        before = model[0](x).clone()

    trace = run(model, lambda: model(x).square().mean(), every)

    assert at(trace, "activation_zero_share", "0")[1] == [0.0]
    assert at(trace, "activation_mean", "0")[1] == [pytest.approx(float(before.mean()), rel=1e-5)]
    assert at(trace, "activation_mean", "1")[1] == [
        pytest.approx(float(before.relu().mean()), rel=1e-5)
    ]
    assert all(0.2 < share[0] < 0.8 for share in at(trace, "activation_zero_share", "1").values())


@dataclass
class Pair:
    hidden: Tensor
    note: str


class Wraps(nn.Module):
    """A layer that hands its result out in a container."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6) * 0.3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x @ self.weight.t())


class Unwraps(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any], unwrap: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.inner = Wraps(wrap)
        self.head = nn.Linear(8, 1)
        self.unwrap = unwrap

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.unwrap(self.inner(x)))


def model_output(h: Tensor) -> Any:
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=h)


CONTAINERS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda h: (h, None), lambda out: out[0]),
    "list": (lambda h: [h], lambda out: out[0]),
    "nested": (lambda h: {"a": ("b", [h])}, lambda out: out["a"][1][0]),
    "dict": (lambda h: {"hidden": h, "count": 3}, lambda out: out["hidden"]),
    "ModelOutput": (model_output, lambda out: out.last_hidden_state),
    "dataclass": (lambda h: Pair(h, "x"), lambda out: out.hidden),
}


@BOTH
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_result_is_seen_inside_every_container(container: str, every: Any) -> None:
    wrap, unwrap = CONTAINERS[container]
    model = Unwraps(wrap, unwrap)
    x = torch.randn(16, 6)
    true: list[tuple[float, float]] = []

    def loss_of() -> Tensor:
        hidden = (x @ model.inner.weight.t()).detach()
        out = hidden @ model.head.weight.t() + model.head.bias
        gradient = (2 * out / out.numel()) @ model.head.weight
        true.append((float(hidden.mean()), norm(gradient)))
        return model(x).square().mean()

    trace = run(model, loss_of, every)

    means, norms = (
        {i + 1: [pytest.approx(pair[k], rel=1e-4, abs=1e-7)] for i, pair in enumerate(true)}
        for k in (0, 1)
    )
    assert at(trace, "activation_mean", "inner") == means
    assert at(trace, "activation_grad_norm", "inner") == norms


@BOTH
def test_a_module_called_many_times_is_read_at_its_first_calls(every: Any) -> None:
    cell, head = nn.Linear(6, 6), nn.Linear(6, 1)
    model = nn.Sequential(cell, head)
    model.forward = lambda x: head(cell(cell(cell(cell(cell(x).tanh()).tanh()).tanh()).tanh()))
    x = torch.randn(16, 6)
    first: list[float] = []

    def loss_of() -> Tensor:
        with torch.no_grad():
            first.append(float((x @ cell.weight.t() + cell.bias).mean()))
        return model(x).square().mean()

    trace = run(model, loss_of, every)

    means = at(trace, "activation_mean", "0")
    assert {step: values[0] for step, values in means.items()} == {
        i + 1: pytest.approx(mean, rel=1e-4, abs=1e-7) for i, mean in enumerate(first)
    }
    kinds = looks(STEPS)
    assert {step: len(values) for step, values in means.items()} == {
        step: 4 if step in kinds[Look.FULL] else 1 for step in range(1, STEPS + 1)
    }
    assert trace.modules["0"].calls == 5


@BOTH
def test_recurrent_modules_show_their_sequence_and_take_their_gradient(every: Any) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(5, 7, batch_first=True)
            self.gru = nn.GRUCell(7, 4)
            self.head = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            sequence, _ = self.rnn(x)
            true.append(float(sequence.detach().mean()))
            state = x.new_zeros(len(x), 4)
            for moment in sequence.unbind(1):
                state = self.gru(moment, state)
            return self.head(state)

    true: list[float] = []
    model = Reader()
    x = torch.randn(8, 3, 5)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every)

    assert at(trace, "activation_mean", "rnn") == {
        i + 1: [pytest.approx(mean, rel=1e-4, abs=1e-7)] for i, mean in enumerate(true)
    }
    assert all(values[0] > 0 for values in at(trace, "activation_grad_norm", "rnn").values())
    assert {o.site.path for o in trace.of("gradient_norm")} == {
        path for path, _ in model.named_parameters()
    }


class LastState(nn.Module):
    """Reads the last state of an LSTM alone: its sequence gets no gradient at all."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 7), nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[1][0][-1])


class SecondHalf(nn.Module):
    """Cuts what a layer returns in two and goes on with one part."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Linear(5, 14)
        self.cut.forward = lambda x: nn.functional.linear(x, self.cut.weight).chunk(2, -1)
        self.head = nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cut(x)[1])


@BOTH
@pytest.mark.parametrize("build", [LastState, SecondHalf])
def test_an_output_that_gets_no_gradient_stops_neither_the_run_nor_the_watching(
    build: Callable[[], nn.Module], every: Any
) -> None:
    model = build()
    x = torch.randn(3, 8, 5)

    trace = run(model, lambda: (model(x) - 1).square().mean(), every)

    assert len(at(trace, "activation_grad_norm", "head")) == STEPS
    assert not at(trace, "activation_grad_norm", "rnn" if build is LastState else "cut")
    assert trace.facts.loop is not None
    assert trace.facts.loop.observed == STEPS


def test_a_mistake_of_ours_inside_a_backward_ends_the_watching_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(tensor: Tensor) -> Tensor:
        raise ValueError("ours")

    monkeypatch.setattr("gradlint.hooks.gains.l2_norm", broken)
    monkeypatch.setattr("gradlint.metrics.activation_grad_norm.l2_norm", broken)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = model[0].weight.detach().clone()

    with Watcher(model, optimizer, every=1) as watcher:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 5)).square().mean().backward()
            optimizer.step()

    assert isinstance(watcher.loop.failure, ValueError)
    assert not torch.equal(before, model[0].weight)
