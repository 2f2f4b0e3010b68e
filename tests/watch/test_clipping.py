"""Clipping: how often, how, at what limit, and what was left, whoever did it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_ as imported_early
from torch.nn.utils import clip_grad_value_ as value_imported_early

from gradlint.trace import Trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH, STEPS, Ledger, norm

Clip = Callable[[nn.Module], Any]


def run(clip: Clip, every: Any, steps: int = STEPS) -> tuple[Trace, list[float], Watcher]:
    """Train with `clip` before each step; return the norms before it, too."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3))
    x, y = torch.randn(32, 12), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger, before = Ledger(model), []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            before.append(math.hypot(*(norm(p.grad) for p in model.parameters())))
            clip(model)
            ledger.before()
            optimizer.step()
            ledger.after()
    trace = ledger.agrees(watcher)
    measured = trace.of("backward_gradient_norm").training.values
    assert list(measured) == pytest.approx(before, rel=1e-5)
    return trace, before, watcher


def by_attribute(model: nn.Module) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def early(model: nn.Module) -> None:
    imported_early(model.parameters(), max_norm=0.1)


def strict(model: nn.Module) -> None:
    imported_early(model.parameters(), 0.1, error_if_nonfinite=True)


def torchtitan(model: nn.Module) -> None:
    gradients = [p.grad for p in model.parameters()]
    total = nn.utils.get_total_norm(gradients)
    nn.utils.clip_grads_with_norm_(model.parameters(), 0.1, total)


def tensor_limit(model: nn.Module) -> None:
    imported_early(list(model.parameters()), torch.tensor(0.1))


@BOTH
@pytest.mark.parametrize("clip", [by_attribute, early, strict, torchtitan, tensor_limit])
def test_clipping_by_norm_is_told_with_both_norms(clip: Clip, every: Any) -> None:
    trace, before, _ = run(clip, every)

    clipping = trace.facts.loop.clipping
    assert (clipping.kind, clipping.calls, clipping.steps, clipping.tensors) == ("norm", 9, 9, 4)
    assert clipping.limit == pytest.approx(0.1)
    assert list(trace.of("norm_before_clipping").training.values) == pytest.approx(before, 1e-5)
    assert list(trace.of("clipping_limit").training.values) == pytest.approx([0.1] * STEPS)
    after = trace.of("total_gradient_norm").training.values
    assert list(after) == pytest.approx([0.1] * STEPS, rel=1e-3)


@BOTH
def test_another_norm_is_told_as_the_call_measured_it(every: Any) -> None:
    def largest(model: nn.Module) -> None:
        true.append(max(float(p.grad.abs().max()) for p in model.parameters()))
        imported_early(model.parameters(), 0.01, norm_type=math.inf)

    true: list[float] = []
    trace, _, _ = run(largest, every)

    assert list(trace.of("norm_before_clipping").training.values) == pytest.approx(true, rel=1e-5)


@BOTH
@pytest.mark.parametrize(
    "clip", [value_imported_early, lambda *a: torch.nn.utils.clip_grad_value_(*a)],
    ids=["early", "by attribute"],
)  # fmt: skip
def test_clipping_by_value_is_told_with_its_limit(clip: Any, every: Any) -> None:
    trace, before, _ = run(lambda model: clip(model.parameters(), 0.01), every)

    clipping = trace.facts.loop.clipping
    assert clipping is not None
    assert max(trace.of("total_gradient_norm").training.values) < min(before)
    assert (clipping.kind, clipping.limit, clipping.calls) == ("value", 0.01, STEPS)
    assert list(trace.of("clipping_limit").training.values) == [0.01] * STEPS
    assert trace.of("norm_before_clipping").values == ()


@BOTH
def test_clipping_each_parameter_by_itself_is_told_by_its_calls(every: Any) -> None:
    def each(model: nn.Module) -> None:
        largest.append(max(norm(p.grad) for p in model.parameters()))
        for parameter in model.parameters():
            imported_early(parameter, 0.05)

    largest: list[float] = []
    trace, _, _ = run(each, every)

    clipping = trace.facts.loop.clipping
    assert (clipping.calls, clipping.steps, clipping.tensors) == (4 * STEPS, STEPS, 1)
    assert clipping.calls_per_step == 4
    assert list(trace.of("norm_before_clipping").training.values) == pytest.approx(largest, 1e-5)


def scaled_in_place(model: nn.Module) -> None:
    total = math.hypot(*(norm(p.grad) for p in model.parameters()))
    for parameter in model.parameters():
        parameter.grad.mul_(0.1 / total)


def replaced(model: nn.Module) -> None:
    total = math.hypot(*(norm(p.grad) for p in model.parameters()))
    for parameter in model.parameters():
        parameter.grad = parameter.grad * (0.1 / total)


def through_data(model: nn.Module) -> None:
    total = math.hypot(*(norm(p.grad) for p in model.parameters()))
    for parameter in model.parameters():
        parameter.grad.data.mul_(0.1 / total)


def clamped_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad.data.clamp_(-0.005, 0.005)


@BOTH
@pytest.mark.parametrize("clip", [scaled_in_place, replaced, through_data, clamped_data])
def test_clipping_by_hand_is_told_by_the_norms(clip: Clip, every: Any) -> None:
    trace, before, _ = run(clip, every)

    clipping = trace.facts.loop.clipping
    assert clipping is not None
    assert (clipping.kind, clipping.steps) == ("by-hand", STEPS)
    assert math.isnan(clipping.limit)
    after = trace.of("total_gradient_norm").training.values
    assert all(late < early for late, early in zip(after, before, strict=True))
    if clip is not clamped_data:
        assert list(after) == pytest.approx([0.1] * STEPS, rel=1e-4)


def divided(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad /= 4


@BOTH
def test_a_gradient_that_is_averaged_by_hand_is_not_clipped(every: Any) -> None:
    trace, before, _ = run(divided, every)

    assert trace.facts.loop.clipping is None
    after = trace.of("total_gradient_norm").training.values
    assert [4 * norm for norm in after] == pytest.approx(before, rel=1e-5)


@BOTH
def test_a_limit_that_is_never_reached_clips_nothing(every: Any) -> None:
    trace, before, watcher = run(lambda model: imported_early(model.parameters(), 100.0), every)

    assert trace.facts.loop.clipping.steps == STEPS
    assert list(trace.of("total_gradient_norm").training.values) == pytest.approx(before, 1e-4)
    assert watcher.report.verdict == "healthy"


@BOTH
def test_without_clipping_there_is_none(every: Any) -> None:
    trace, _, _ = run(lambda model: None, every)

    assert trace.facts.loop.clipping is None
    assert "norm_before_clipping" not in trace.metrics


@BOTH
def test_clipping_somebody_elses_parameters_is_nothing_of_ours(every: Any) -> None:
    other = nn.Linear(3, 3)
    other(torch.randn(2, 3)).sum().backward()

    trace, _, _ = run(lambda model: imported_early(other.parameters(), 0.1), every)

    assert trace.facts.loop.clipping is None


@BOTH
def test_a_clip_that_raises_on_a_gradient_that_is_not_finite_reaches_the_user(every: Any) -> None:
    def spoil(model: nn.Module) -> None:
        calls.append(1)
        if len(calls) == 5:
            model[0].weight.grad[0, 0] = float("nan")
        strict(model)

    calls: list[int] = []
    with pytest.raises(RuntimeError, match="non-finite"):
        run(spoil, every)
    assert len(calls) == 5
