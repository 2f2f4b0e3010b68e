"""Calls of a model that are not the usual one: evaluations, forwards by hand, its own loss."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.trace import Trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH, STEPS, Ledger, at


class Coder(nn.Module):
    """An autoencoder, whose parts are often called by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.decode = nn.Linear(8, 6)
        self.means: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def run(
    model: nn.Module, loss_of: Callable[[], Tensor], every: Any,
    between: Callable[[], Any] = lambda: None, *, before: bool = True,
) -> tuple[Trace, Watcher]:  # fmt: skip
    """Train with SGD; `between` runs before the step's forward, or after its backward."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger, losses = Ledger(model), []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            if before:
                between()
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            losses.append(float(loss.detach()))
            if not before:
                between()
            ledger.before()
            optimizer.step()
            ledger.after()
    trace = ledger.agrees(watcher)
    assert list(trace.of("loss").training.values) == losses
    assert watcher.report.verdict == "healthy"
    return trace, watcher


def setup() -> tuple[Coder, Callable[[], Tensor], list[float]]:
    torch.manual_seed(17)
    model = Coder()
    x = torch.randn(32, 6)
    means: list[float] = []

    def loss_of() -> Tensor:
        model.train()
        out = model(x)
        means.append(float(out.detach().mean()))
        return (out - x).square().mean()

    return model, loss_of, means


def evaluate(model: nn.Module, context: Any) -> Callable[[], None]:
    def run() -> None:
        model.eval()
        with context():
            for _ in range(2):
                (model(torch.randn(8, 6) * 50) - 1).square().mean()
        model.train()

    return run


@BOTH
@pytest.mark.parametrize("when", ["before", "after backward"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_between_steps_is_not_the_training(
    context: Any, when: str, every: Any
) -> None:
    model, loss_of, means = setup()

    trace, _ = run(model, loss_of, every, evaluate(model, context), before=when == "before")

    expected = {i + 1: [pytest.approx(mean, rel=1e-4, abs=1e-6)] for i, mean in enumerate(means)}
    assert at(trace, "activation_mean", "decode") == expected
    assert trace.modules["encode.1"].training
    assert trace.facts.loop.backwards == STEPS


@BOTH
def test_an_evaluation_with_gradients_never_asked_for_leaves_gradients_alone(every: Any) -> None:
    model, loss_of, means = setup()

    trace, _ = run(model, loss_of, every, evaluate(model, torch.enable_grad))

    # The training's own call is there, whatever else ran with gradients on.
    assert len(means) == STEPS
    assert trace.facts.loop.backwards == STEPS
    assert trace.modules["encode.1"].training


@BOTH
def test_a_forward_called_by_itself_shows_what_ran_below_it(every: Any) -> None:
    model, _, _ = setup()
    x = torch.randn(32, 6)
    means: list[float] = []

    def loss_of() -> Tensor:
        out = model.forward(x)  # the outermost module's hooks do not run
        means.append(float(out.detach().mean()))
        return (out - x).square().mean()

    trace, watcher = run(model, loss_of, every)

    assert at(trace, "activation_mean", "decode") == {
        i + 1: [pytest.approx(mean, rel=1e-4, abs=1e-6)] for i, mean in enumerate(means)
    }
    assert "GL001" not in {f.code for f in watcher.report.findings}


@BOTH
def test_parts_called_one_by_one_are_one_training(every: Any) -> None:
    model, _, _ = setup()
    x = torch.randn(32, 6)
    means: list[float] = []

    def loss_of() -> Tensor:
        code = model.encode(x)
        out = model.decode(code)
        means.append(float(out.detach().mean()))
        return (out - x).square().mean() + 0.01 * code.abs().mean()

    trace, watcher = run(model, loss_of, every)

    assert at(trace, "activation_mean", "decode") == {
        i + 1: [pytest.approx(mean, rel=1e-4, abs=1e-6)] for i, mean in enumerate(means)
    }
    assert trace.graph.operations
    assert {f.site.path for f in trace.facts.flows} == {"encode.0", "decode"}
    assert "GL001" not in {f.code for f in watcher.report.findings}


@BOTH
def test_a_model_that_returns_its_own_loss_is_followed(every: Any) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(18)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    tokens, labels = torch.randint(0, 30, (8, 10)), torch.randint(0, 2, (8,))

    trace, _ = run(model, lambda: model(input_ids=tokens, labels=labels).loss, every)

    assert {len(v) for v in at(trace, "activation_grad_norm", "classifier").values()} == {1}
    assert len(at(trace, "activation_std", "bert.encoder.layer.1.output.dense")) == STEPS


@BOTH
def test_a_model_saved_and_loaded_in_its_loop_is_followed_on(every: Any) -> None:
    model, loss_of, means = setup()

    def save() -> None:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
        pickle.loads(pickle.dumps(model))
        model.load_state_dict(again.state_dict())
        again(torch.randn(8, 6) * 100)

    trace, _ = run(model, loss_of, every, save)

    assert at(trace, "activation_mean", "decode") == {
        i + 1: [pytest.approx(mean, rel=1e-4, abs=1e-6)] for i, mean in enumerate(means)
    }
    assert trace.facts.pretrained


@BOTH
def test_keyword_only_calls_are_seen(every: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 1)

        def forward(self, *, x: Tensor, scale: float) -> dict[str, Tensor]:
            return {"score": self.inner(input=x) * scale}

    model = Named()
    x = torch.randn(8, 6)

    trace, _ = run(model, lambda: (model(x=x, scale=2.0)["score"] - 1).square().mean(), every)

    assert sorted(at(trace, "activation_std", "inner")) == list(range(1, STEPS + 1))
    assert [tuple(facts.shape) for facts in trace.facts.inputs] == [(8, 6)]


def test_a_model_first_called_late_is_not_foreign_to_the_optimizer_that_held_it() -> None:
    def train() -> None:
        early, late = nn.Linear(6, 3), nn.Linear(3, 3)
        held = [*early.parameters(), *late.parameters()]
        optimizer = torch.optim.SGD(held, lr=0.01)
        for step in range(30):
            out = early(torch.randn(8, 6))
            optimizer.zero_grad()
            (out if step < 15 else late(out)).square().mean().backward()
            optimizer.step()

    with Watcher(discover=True) as watcher:
        train()

    facts = watcher.trace().facts.optimizer
    assert watcher.loop.failure is None
    assert facts is not None
    assert facts.foreign == 0
