"""Norms of gradients at every operation, against autograd's own gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlint.hooks.calls import Calls
from gradlint.hooks.gains import GainRecorder
from gradlint.hooks.graph import CapturedGraph, capture
from tests.observing import Residual, mlp


def captured(loss: Tensor, model: nn.Module) -> CapturedGraph:
    names = {id(p): path for path, p in model.named_parameters()}
    return capture(loss, Calls(), dict(model.named_modules()), names)


def recorded(loss: Tensor, model: nn.Module) -> tuple[GainRecorder, dict[int, float]]:
    recorder = GainRecorder(captured(loss, model))
    with recorder:
        loss.backward()
    gains = recorder.gains([float(t) for t in recorder.tensors])
    return recorder, gains.norms


def test_every_operation_has_the_norm_of_the_gradient_at_its_output() -> None:
    x = torch.randn(4, 6)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    hidden = model[0](x)
    activation = model[1](hidden)
    output = model[2](activation)
    loss = output.square().sum()
    wanted = torch.autograd.grad(loss, [hidden, activation, output, loss], retain_graph=True)

    _, norms = recorded(loss, model)

    for index, gradient in zip([0, 1, 2, 4], wanted, strict=True):
        assert norms[index] == pytest.approx(float(gradient.double().norm()), rel=1e-12)


def test_edges_into_a_join_are_what_each_branch_contributes() -> None:
    model = Residual(6)
    x = torch.randn(4, 6, requires_grad=True)
    stem = x * 1.0
    out = model(stem)
    loss = out.square().sum()
    (whole,) = torch.autograd.grad(loss, stem, retain_graph=True)
    (direct,) = torch.autograd.grad(loss, out, retain_graph=True)

    recorder = GainRecorder(captured(loss, model))
    with recorder:
        loss.backward()
    gains = recorder.gains([float(t) for t in recorder.tensors])

    graph = recorder.captured.graph
    (join,) = graph.of_kind("add")
    source = graph.by_id[join.inputs[0]]
    into = {e.source: e.norm for e in gains.edges if e.target == source.id}
    assert len(into) == 2
    assert into[join.id] == pytest.approx(float(direct.double().norm()), rel=1e-12)
    assert gains.norms[source.id] == pytest.approx(float(whole.double().norm()), rel=1e-12)


def test_the_order_is_that_of_the_backward() -> None:
    model = mlp()
    recorder, _ = recorded(model(torch.randn(4, 6)).square().mean(), model)

    gains = recorder.gains([float(t) for t in recorder.tensors])

    assert gains.order == sorted(gains.order, reverse=True)


def test_nothing_is_read_back_and_no_hook_stays() -> None:
    model = mlp()
    loss = model(torch.randn(4, 6)).square().mean()
    recorder = GainRecorder(captured(loss, model))

    with recorder:
        loss.backward(retain_graph=True)
    count = len(recorder.tensors)
    loss.backward()

    assert count > 0
    assert len(recorder.tensors) == count
    assert all(isinstance(t, Tensor) and t.dtype == torch.float64 for t in recorder.tensors)


def test_hooks_are_gone_after_a_backward_that_raises() -> None:
    class Raising(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model = nn.Linear(6, 6)
    loss = (Raising.apply(model(torch.randn(4, 6))) * 2).sum()
    recorder = GainRecorder(captured(loss, model))

    with pytest.raises(KeyboardInterrupt), recorder:
        loss.backward()

    assert recorder._handles == []


def test_gradients_do_not_change_by_being_measured() -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 6)
    gradients = []
    for measured in (False, True):
        torch.manual_seed(2)
        model = Residual(6, normalized=True)
        loss = model(x).square().mean()
        if measured:
            recorded(loss, model)
        else:
            loss.backward()
        gradients.append([p.grad for p in model.parameters()])

    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))


def test_several_outputs_of_one_operation_count_as_one() -> None:
    model = nn.Linear(6, 6)
    loss_parts = model(torch.randn(4, 6)).chunk(2, dim=1)
    loss = (3 * loss_parts[0]).sum() + (4 * loss_parts[1]).sum()

    recorder, norms = recorded(loss, model)

    (split,) = recorder.captured.graph.of_kind("split")
    assert norms[split.id] == pytest.approx(math.sqrt(12 * 9 + 12 * 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_norms_are_taken_in_float64(dtype: torch.dtype) -> None:
    x = torch.zeros(100, 100, dtype=dtype, requires_grad=True)
    loss = ((x + 1) * 300).sum()

    recorder, norms = recorded(loss, nn.Identity())

    (shift,) = recorder.captured.graph.of_kind("shift")
    assert norms[shift.id] == pytest.approx(300 * 100)  # 9e8 squared overflows float16


def test_under_a_reentrant_checkpoint_the_inside_is_opaque() -> None:
    model = mlp()
    x = torch.randn(4, 6, requires_grad=True)
    loss = checkpoint(model, x, use_reentrant=True).square().mean()

    recorder, norms = recorded(loss, model)

    assert [op.kind for op in recorder.captured.graph] == ["input", "custom", "pow", "mean"]
    assert all(math.isfinite(n) and n > 0 for n in norms.values())
    assert all(p.grad is not None for p in model.parameters())
