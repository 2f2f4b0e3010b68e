"""Cures: what is shown was tried, and what failed its trial is not shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradlint
from gradlint.diagnosis.remedies import REMEDIES
from gradlint.report import Report
from gradlint.rules import all_rules

CENTERS = 2 * torch.randn(4, 16, generator=torch.Generator().manual_seed(9))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (64,), generator=generator)
    return CENTERS[labels] + torch.randn(64, 16, generator=generator), labels


BATCHES = [batch(seed) for seed in range(4)]


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=3e-3)


def deep(activation: Callable[[], nn.Module], std: float | None = None) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(10):
        layers += [nn.Linear(16, 16), activation()]
        if std is not None:
            nn.init.normal_(layers[-2].weight, std=std)
            nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers, nn.Linear(16, 4))


def dead() -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    nn.init.constant_(model[0].bias, -50.0)
    return model


class Unregistered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(16, 16), nn.Linear(16, 16)]
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


def checked(build: Callable[[], nn.Module], **options: object) -> Report:
    return gradlint.check(build, BATCHES, functional.cross_entropy, adam, seeds=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "code", "summary"),
    [
        pytest.param(lambda: deep(nn.Sigmoid), "GL301", "GELU", id="deep-sigmoid"),
        pytest.param(lambda: deep(nn.ReLU, std=1.0), "GL101", "activation", id="normal-weights"),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(16, 4), nn.Softmax(dim=1)),
            "GL601",
            "in front of the last activation",
            id="doubled-softmax",
        ),
        pytest.param(dead, "GL201", "biases at zero", id="dead-units"),
        pytest.param(Unregistered, "GL709", "ModuleList", id="unregistered"),
    ],
)
def test_a_cure_that_works_is_shown_as_verified(
    build: Callable[[], nn.Module], code: str, summary: str
) -> None:
    first = checked(build).findings[0]

    assert first.code == code
    assert first.cure is not None
    assert first.cure.verified
    assert summary in first.cure.summary
    assert first.cure.after["loss"] < first.cure.before["loss"]


def test_a_cure_that_does_not_apply_is_not_shown() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.linear(x), dim=1)

    first = checked(Functional).findings[0]

    assert first.code == "GL601"
    assert first.cure is None


def test_no_cure_is_tried_when_none_is_wanted() -> None:
    assert checked(lambda: deep(nn.Sigmoid), cures=False).findings[0].cure is None


def test_trying_cures_leaves_a_given_model_alone() -> None:
    model = nn.Sequential(nn.Linear(16, 4), nn.Softmax(dim=1))
    before = [p.detach().clone() for p in model.parameters()]

    gradlint.check(model, BATCHES, functional.cross_entropy, seeds=1)

    assert isinstance(model[1], nn.Softmax)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_every_remedy_is_for_rules_of_the_catalogue() -> None:
    known = {rule.code for rule in all_rules()}

    assert all(remedy.codes <= known for remedy in REMEDIES)
    assert len({remedy.name for remedy in REMEDIES}) == len(REMEDIES)
