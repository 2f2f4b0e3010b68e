"""Gradients by unusual ways: checkpoints, double backward, functional transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlint.trace import Trace
from gradlint.watching import Watcher
from gradlint.watching.cadence import Look
from tests.watch.ledger import BOTH, STEPS, Ledger, at, looks, norm


def run(
    model: nn.Module, loss_of: Callable[[], Tensor], every: Any, *, verdict: str = "healthy"
) -> tuple[Trace, list[float]]:
    """Train with SGD, every step written down."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger, losses = Ledger(model), []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            losses.append(float(loss.detach()))
            ledger.before()
            optimizer.step()
            ledger.after()
    trace = ledger.agrees(watcher)
    assert list(trace.of("loss").training.values) == pytest.approx(losses)
    assert watcher.report.verdict == verdict
    return trace, losses


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.layer = nn.Linear(6, 6)
        self.runs = 0
        self.true: list[tuple[float, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        out = self.layer(self.norm(x)).tanh()
        if out.requires_grad:
            out.register_hook(lambda g: self.true.append((norm(out), norm(g))))
        return out


class Deep(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.block = Block()
        self.head = nn.Linear(6, 1)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.mode == "none":
            return self.head(self.block(h))
        return self.head(checkpoint(self.block, h, use_reentrant=self.mode == "reentrant"))


def trained(mode: str, every: Any) -> tuple[Deep, Trace | None]:
    torch.manual_seed(12)
    model = Deep(mode)
    x = torch.randn(16, 6)

    def loss_of() -> Tensor:
        return (model(x) - 1).square().mean()

    if every is None:  # bare
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()
        return model, None
    return model, run(model, loss_of, every)[0]


@BOTH
@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
def test_a_checkpoint_is_run_as_often_as_without_us_and_seen_once(mode: str, every: Any) -> None:
    bare, _ = trained(mode, None)
    plain, whole = trained("none", every)
    model, trace = trained(mode, every)

    assert trace is not None
    assert whole is not None
    assert model.block.runs == bare.block.runs == 2 * STEPS
    assert torch.equal(model.block.norm.running_mean, bare.block.norm.running_mean)
    assert int(model.block.norm.num_batches_tracked) == int(bare.block.norm.num_batches_tracked)
    assert torch.equal(model.block.layer.weight, bare.block.layer.weight)
    assert torch.equal(model.block.layer.weight, plain.block.layer.weight)
    for path in ("first", "head", "block"):
        means = at(trace, "activation_mean", path)
        assert means == at(whole, "activation_mean", path)
    for path in ("first", "head"):
        assert at(trace, "activation_grad_norm", path) == at(whole, "activation_grad_norm", path)
    inner, true = (at(t, "activation_std", "block.layer") for t in (trace, whole))
    if mode == "reentrant":  # it runs without gradient, as an evaluation does
        true = {step: true[step] for step in looks(STEPS)[Look.FULL]}
    assert inner == true


def penalized(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    score = model(x)
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return (score - 1).square().mean() + 0.1 * (slope.norm(dim=1) - 1).square().mean()


@BOTH
def test_a_gradient_penalty_is_part_of_the_loss_and_no_backward_of_its_own(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(16, 6)
    true: list[float] = []

    def loss_of() -> Tensor:
        loss = penalized(model, x)
        hidden = model[0](x).tanh().detach()
        out = hidden @ model[2].weight.t().detach() + model[2].bias.detach()
        true.append(norm(2 * (out - 1) / out.numel()))
        return loss

    trace, _ = run(model, loss_of, every)

    # Of the output only the first term asks: the penalty's own pass is not the loss's.
    first = {step: values[0] for step, values in at(trace, "activation_grad_norm", "2").items()}
    assert first == pytest.approx({i + 1: value for i, value in enumerate(true)}, rel=1e-4)
    assert trace.facts.loop.backwards == STEPS


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")
@BOTH
def test_a_backward_that_keeps_its_graph_for_a_second_one_is_measured_twice(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(16, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    ledger = Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward(create_graph=True, inputs=list(model.parameters()))
            penalty = sum(p.grad.square().sum() for p in model.parameters())
            (0.01 * penalty).backward(inputs=list(model.parameters()))
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher)
    assert trace.facts.loop.backwards == 2 * STEPS


@BOTH
def test_functional_transforms_in_the_loop_are_left_alone(every: Any) -> None:
    from torch.func import functional_call, grad, vmap

    torch.manual_seed(13)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(16, 6)
    first: list[float] = []

    def one(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, parameters, (sample[None],)).square().mean()

    def loss_of() -> Tensor:
        each = vmap(grad(one), in_dims=(None, 0))(
            {name: p.detach() for name, p in model.named_parameters()}, x
        )
        assert each["0.weight"].shape == (16, 16, 6)
        out = model(x)
        first.append(float(out.detach().mean()))
        return (out - 1).square().mean()

    trace, _ = run(model, loss_of, every)

    means = at(trace, "activation_mean", "2")
    assert means == {i + 1: [pytest.approx(m, rel=1e-4, abs=1e-6)] for i, m in enumerate(first)}
    assert trace.facts.loop.backwards == STEPS


@BOTH
def test_a_custom_function_and_a_straight_through_estimator_are_followed(every: Any) -> None:
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 1))
    x = torch.randn(16, 6)

    def loss_of() -> Tensor:
        h = Round.apply(model[0](x))
        return (model[1](h + (h.sign() - h).detach()) - 1).square().mean()

    trace, _ = run(model, loss_of, every)

    ratios = [after[0] > 0 for after in at(trace, "activation_grad_norm", "0").values()]
    assert ratios == [True] * STEPS


@pytest.mark.parametrize("keep", [False, True], ids=["to-none", "to-zero"])
@BOTH
def test_the_loss_of_gradients_that_were_looked_at_and_cleared_is_not_the_steps(
    every: Any, keep: bool
) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(64, 6), torch.randint(0, 3, (64,))
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            attacked = x.clone()
            for _ in range(4):
                attacked.requires_grad_()
                nn.functional.cross_entropy(model(attacked), y).backward()
                attacked = (attacked + 0.05 * attacked.grad.sign()).detach()
                model.zero_grad(set_to_none=not keep)
            optimizer.zero_grad(set_to_none=not keep)
            loss = nn.functional.cross_entropy(model(attacked), y)
            loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
    trace = watcher.trace()
    assert list(trace.of("loss").training.values) == pytest.approx(losses)
    assert trace.facts.loop is not None
    assert trace.facts.loop.summed == 1
    assert "GL105" not in {f.code for f in watcher.report.findings}


@BOTH
def test_losses_of_micro_batches_are_summed_and_counted(every: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            total = 0.0
            for _ in range(4):
                x, y = torch.randn(32, 6), torch.randint(0, 10, (32,))
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                total += float(loss.detach())
            losses.append(total)
            optimizer.step()
    trace = watcher.trace()
    assert list(trace.of("loss").training.values) == pytest.approx(losses)
    assert trace.facts.loop is not None
    assert trace.facts.loop.summed == 4
    assert "GL105" not in {f.code for f in watcher.report.findings}
