"""Looks after the first steps: what each measures, and what is known of steps that rest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from gradlint.trace import Trace
from gradlint.watching import Watcher
from gradlint.watching.cadence import FIRST_LIGHT
from gradlint.watching.loop import APART

STEPS = 90


def watched(every: Any) -> tuple[Trace, dict[str, list[float]]]:
    """Train an MLP, and write down what is true of every step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 300), nn.Tanh(), nn.Linear(300, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.9)
    inputs, targets = torch.randn(64, 12), torch.randint(0, 3, (64,))
    true: dict[str, list[float]] = {"loss": [], "rate": [], "gradient": [], "weight": []}
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            true["loss"].append(float(loss.detach()))
            true["rate"].append(optimizer.param_groups[0]["lr"])
            true["gradient"].append(float(nn.utils.get_total_norm([
                p.grad for p in model.parameters() if p.grad is not None
            ])))  # fmt: skip
            true["weight"].append(float(model[0].weight.detach().norm()))
            optimizer.step()
            scheduler.step()
    return watcher.trace(), true


def test_all_late_looks_measure_gradients_and_thorough_ones_activations_weights_and_backward() -> (
    None
):
    trace, true = watched(1)

    late = list(range(FIRST_LIGHT + 1, STEPS + 1))
    total = {o.step: o.value for o in trace.of("total_gradient_norm").at("")}
    weights = {o.step: o.value for o in trace.of("weight_norm").at("0.weight")}
    before = {o.step: o.value for o in trace.of("backward_gradient_norm").at("")}
    outputs = {o.step: o.value for o in trace.of("activation_std").at("1")}
    updates = {o.step: o.value for o in trace.of("update_to_weight_ratio").at("0.weight")}
    ratios = {o.step: o.value for o in trace.of("gradient_ratio").at("0.weight")}
    gradients = {o.step: o.value for o in trace.of("gradient_norm").at("0.weight")}
    assert [total[s] for s in late] == pytest.approx([true["gradient"][s - 1] for s in late])
    thorough = [s for s in late if s in weights]
    assert all(b - a <= APART for a, b in itertools.pairwise(thorough))
    assert len(thorough) <= len(late) / APART + 2
    assert [weights[s] for s in thorough] == pytest.approx(
        [true["weight"][s - 1] for s in thorough]
    )
    assert [s for s in late if s in before] == thorough
    assert [s for s in late if s in outputs] == thorough
    assert [s for s in late if s in updates] == late
    for step in late:  # by the weight's norm of a few steps ago
        assert ratios[step] == pytest.approx(gradients[step] / true["weight"][step - 1], rel=0.05)


def test_loss_and_learning_rate_are_known_of_every_step_that_rests() -> None:
    trace, true = watched(10_000)

    losses = {o.step: o.value for o in trace.of("loss").at("").training}
    rates = {o.step: o.value for o in trace.of("learning_rate").at("").training}
    assert [losses[s] for s in range(1, STEPS + 1)] == pytest.approx(true["loss"])
    assert rates[51] == pytest.approx(true["rate"][50])
    assert rates[81] == pytest.approx(true["rate"][80])


def test_a_model_met_while_steps_rest_is_looked_at() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 2), nn.Linear(4, 2)
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    inputs = torch.randn(8, 4)
    with Watcher(None, None, every=10_000, discover=True) as watcher:
        for step in range(60):
            optimizer.zero_grad()
            outputs = first(inputs) if step < 50 else first(inputs) + second(inputs)
            outputs.square().mean().backward()
            optimizer.step()
    trace = watcher.trace()

    assert [o.step for o in trace.of("loss").at("").training] == list(range(1, 61))


def test_gradients_of_consecutive_steps_are_compared_less_often_once_much_is_known() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Watcher(model, optimizer, every=1) as watcher:
        for _ in range(200):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    seen = watcher.trace().of("gradient_signal_to_noise").at("3.weight")

    assert [o.step for o in seen if o.step <= 64] == list(range(8, 65, 8))
    assert [o.step for o in seen if o.step > 64] == [135, 199]


@pytest.mark.parametrize("step", [43, 44, 45])
def test_a_gradient_that_is_not_finite_is_placed_without_activations_too(step: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Watcher(model, optimizer, every=1) as watcher:
        for number in range(1, step + 1):
            optimizer.zero_grad()
            hidden = model[1](model[0](torch.randn(8, 4)))
            loss = model[2](hidden).square().mean()
            if number == step:
                loss = loss + (0 * hidden).sum().sqrt()  # 0, and a gradient of 0 × ∞
            loss.backward()
            optimizer.step()
    (event,) = watcher.trace().events("non-finite")

    assert (event.step, event.module) == (step, "0")
    assert event.detail["phase"] == "backward"
