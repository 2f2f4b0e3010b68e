"""A watcher that is given a model alone, and optimizers of something else that step beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.watching import Watcher

Loop = Callable[[nn.Module], None]
STEPS = 20


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def batch() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(32, 8)
    return inputs, inputs[:, :4].argmax(1)


def of_another_model(model: nn.Module, steps: int = STEPS, accumulate: int = 1) -> None:
    optimizer = torch.optim.Adam(classifier().parameters())
    for step in range(steps):
        inputs, targets = batch()
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        if (step + 1) % accumulate == 0:
            optimizer.step()


def distilled(teacher: nn.Module) -> None:
    """The teacher's gradients flow; nobody turned them off."""
    student = classifier()
    optimizer = torch.optim.Adam(student.parameters())
    for _ in range(STEPS):
        inputs, _ = batch()
        optimizer.zero_grad()
        functional.mse_loss(student(inputs), teacher(inputs)).backward()
        optimizer.step()


def judged(critic: nn.Module) -> None:
    """A generator learns from what the watched network says of it."""
    generator = nn.Linear(3, 8)
    optimizer = torch.optim.Adam(generator.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        critic(generator(torch.randn(32, 3))).mean().neg().backward()
        optimizer.step()


def painted(model: nn.Module) -> None:
    image = torch.randn(32, 8, requires_grad=True)
    optimizer = torch.optim.Adam([image], 0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(image)[:, 0].mean().neg().backward()
        optimizer.step()


def in_master_copies(model: nn.Module) -> None:
    masters = [p.detach().double().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(masters, 0.1)
    for _ in range(STEPS):
        inputs, targets = batch()
        functional.cross_entropy(model(inputs), targets).backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.double(), None
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)


def by_hand_beside_a_dummy(model: nn.Module) -> None:
    """An optimizer that exists for its schedule alone."""
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    schedule = torch.optim.lr_scheduler.StepLR(dummy, 10)
    for _ in range(STEPS):
        inputs, targets = batch()
        model.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= schedule.get_last_lr()[0] * parameter.grad
        dummy.step()
        schedule.step()


def looked_at(model: nn.Module) -> None:
    """Saliency: nothing steps."""
    for _ in range(STEPS):
        model(batch()[0])[:, 0].sum().backward()


def of_its_own(model: nn.Module) -> None:
    """A second optimizer idles on something else beside the model's own."""
    own = torch.optim.Adam(model.parameters())
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    for _ in range(STEPS):
        inputs, targets = batch()
        own.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        other.step()
        own.step()


def codes(loop: Loop) -> list[str]:
    torch.manual_seed(0)
    model = classifier()
    with Watcher(model) as watcher:
        loop(model)
    assert watcher.loop.failure is None
    return [f.code for f in watcher.report.findings]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_of_another_model_is_named(accumulate: int) -> None:
    found = codes(lambda model: of_another_model(model, accumulate=accumulate))

    assert found[0] == "GL703"
    assert "GL707" not in found


def test_a_few_steps_are_not_judged() -> None:
    assert "GL703" not in codes(lambda model: of_another_model(model, steps=9))


@pytest.mark.parametrize(
    "loop",
    [
        distilled, judged, painted, in_master_copies, by_hand_beside_a_dummy, looked_at,
        of_its_own,
    ],
)  # fmt: skip
def test_what_steps_beside_a_model_for_good_reason_is_left_alone(loop: Loop) -> None:
    assert "GL703" not in codes(loop)
