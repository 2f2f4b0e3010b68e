"""GL307 gradient-noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlint.metrics.gradient_signal_to_noise import gradient_signal_to_noise
from gradlint.rules.gradient_noise import GradientNoise
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Trace

FLAT = [1.0, 1.1, 0.9, 1.05, 0.95] * 8
FALLING = [1.0 - 0.02 * step for step in range(40)]


def training(
    ratios: list[float], losses: list[float] = FLAT, start: int = 4, **facts: Any
) -> Trace:
    return trace_of(
        observe("gradient_signal_to_noise", "fc.weight", ratios, kind="parameter", start=start),
        observe("loss", "", [1.0], step=0),
        observe("loss", "", losses),
        command="run",
        **facts,
    )


def few_losses(count: int) -> Trace:
    trace = training([0.001] * 20, [])
    return trace.but(
        observations=(
            *trace,
            *(o for i in range(count) for o in observe("loss", "", [1.0], start=20 + i)),
        )
    )


def flagged(trace: Trace) -> bool:
    return bool(findings_of(GradientNoise(), trace))


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        pytest.param([0.001] * 16, True, id="noise"),
        pytest.param([-0.03, 0.02] * 10, True, id="noise-of-either-sign"),
        pytest.param([0.01] * 16, False, id="exactly-at-the-limit"),
        pytest.param([0.3] * 20, False, id="a-direction"),
        pytest.param([0.001] * 15, False, id="too-few-measurements"),
        pytest.param([0.001] * 8 + [0.2] * 9, False, id="median-not-minimum"),
        pytest.param([-0.125] * 20, False, id="alternating-is-no-noise"),
        pytest.param([math.nan] * 20, False, id="zero-gradients-say-nothing"),
        pytest.param([], False, id="nothing-seen"),
    ],
)
def test_flags_what_has_no_direction(ratios: list[float], expected: bool) -> None:
    assert flagged(training(ratios)) is expected


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(training([0.0] * 20, FALLING), False, id="the-loss-falls"),
        pytest.param(training([0.0] * 20, [1.0] * 40), True, id="the-loss-is-constant"),
        pytest.param(training([0.0] * 20, pretrained=True), False, id="from-trained-weights"),
        pytest.param(training([0.0] * 20, start=21), False, id="seen-late-only"),
        pytest.param(training([0.0] * 20, []), False, id="no-loss-known"),
        pytest.param(few_losses(7), False, id="seven-losses"),
        pytest.param(few_losses(8), True, id="eight-losses"),
    ],
)
def test_speaks_only_where_the_loss_stays_from_the_start(trace: Trace, expected: bool) -> None:
    assert flagged(trace) is expected


def test_the_message_holds_ratio_and_limit() -> None:
    (found,) = findings_of(GradientNoise(), training([0.002] * 20))

    assert found.message == (
        "gradients of consecutive steps have nothing in common: signal to noise is 0.002 on the "
        "median of 20 measurements (limit 0.01), and the loss stays"
    )
    assert found.severity.label == "note"
    assert found.module == ""


def looped(batch: int, lr: float, noise: float = 10.0, steps: int = 400) -> Trace:
    """A loop over a linear model, watched as a watcher does it: eight steps at a time."""
    torch.manual_seed(0)
    model = nn.Linear(32, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    window: list[torch.Tensor] = []
    losses, ratios = [], []
    for _ in range(steps):
        x = torch.randn(batch, 32)
        y = x[:, :1] + noise * torch.randn(batch, 1)
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        assert model.weight.grad is not None
        window.append(model.weight.grad.flatten().clone())
        optimizer.step()
        losses.append(float(loss.detach()))
        if len(window) == 8:
            ratios.append(float(gradient_signal_to_noise(torch.stack(window))))
            window.clear()
    return training(ratios, losses)


def test_single_samples_of_noisy_labels_are_noise_and_large_batches_are_not() -> None:
    assert flagged(looped(1, 1e-4))
    assert not flagged(looped(512, 1e-2))


@pytest.mark.parametrize("batch", [8, 32, 128])
def test_learning_with_small_batches_is_silent(batch: int) -> None:
    assert not flagged(looped(batch, 1e-2, noise=0.1))
