"""Of a program with two faults that have nothing to do with each other, both are named."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlint
from gradlint.finding import Severity
from tests.zoo.recipes import rows


class Net(nn.Module):
    """Three hidden layers for the digits, with room for faults."""

    def __init__(self, detach: bool, listed: bool, evaluated: bool, doubled: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Linear(64, 48),
            nn.Linear(48, 48),
            nn.Linear(48, 48),
        )
        self.norm, self.head = nn.BatchNorm1d(48) if evaluated else None, nn.Linear(48, 10)
        self.more = [nn.Linear(48, 48)] if listed else []
        self.detach, self.doubled, self.evaluated = detach, doubled, evaluated

    def train(self, mode: bool = True) -> Net:
        return super().train(mode and not self.evaluated)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(torch.relu(self.first(x))))
        h = h.detach() if self.detach else h
        h = h if self.norm is None else self.norm(h)
        for layer in self.more:
            h = torch.relu(layer(h))
        h = self.head(torch.relu(self.third(h)))
        return h.softmax(1) if self.doubled else h


def layers(model: Net) -> list[nn.Linear]:
    return [m for m in model.children() if isinstance(m, nn.Linear)]


def constant(model: Net) -> None:
    for layer in layers(model):
        nn.init.constant_(layer.weight, 0.05)
        nn.init.zeros_(layer.bias)


def large(model: Net) -> None:
    for layer in layers(model):
        nn.init.normal_(layer.weight, std=2.0)


def frozen(model: Net) -> None:
    for layer in layers(model)[:-1]:
        layer.requires_grad_(False)


def with_nan(x: Tensor) -> Tensor:
    return torch.where(torch.arange(len(x))[:, None] == 3, torch.nan, x)


@dataclass(frozen=True)
class Fault:
    """A fault, the codes that name it, and where it is planted."""

    codes: str
    network: str = ""
    weights: Callable[[Net], None] | None = None
    inputs: Callable[[Tensor], Tensor] | None = None
    optimizer: tuple[tuple[str, Any], ...] = ()
    head_only: bool = False


FAULTS = {
    "raw": Fault("GL606", inputs=lambda x: x * 90 + 120),
    "nan": Fault("GL501", inputs=with_nan),
    "detached": Fault("GL701", network="detach"),
    "listed": Fault("GL709", network="listed"),
    "evaluated": Fault("GL710", network="evaluated"),
    "doubled": Fault("GL601", network="doubled"),
    "constant": Fault("GL102", weights=constant),
    "large": Fault("GL101 GL104 GL302", weights=large),
    "frozen": Fault("GL712", weights=frozen),
    "still": Fault("GL402", optimizer=(("lr", 1e-10),)),
    "thrown": Fault("GL401", optimizer=(("lr", 10.0),)),
    "climbing": Fault("GL609", optimizer=(("maximize", True),)),
    "decaying": Fault("GL408", optimizer=(("weight_decay", 60.0),)),
    "forgotten": Fault("GL702", head_only=True),
}

UNSEEN = {
    frozenset({"nan", "still"}): "no update is known where all numbers are NaN",
    frozenset({"nan", "thrown"}): "no update is known where all numbers are NaN",
    frozenset({"nan", "climbing"}): "no loss is known where all numbers are NaN",
    frozenset({"nan", "decaying"}): "no weight is known where all numbers are NaN",
    frozenset({"nan", "raw"}): "the scale of NaN is not known",
    frozenset({"nan", "large"}): "no gradient is known where all numbers are NaN",
    frozenset({"raw", "frozen"}): "weights that do not learn may be made for their inputs",
    frozenset({"raw", "constant"}): "what constant weights make of inputs does not tell their size",
    frozenset({"constant", "frozen"}): "frozen weights are not meant to learn",
    frozenset({"frozen", "large"}): "no gradient grows in weights that need none",
    frozenset({"detached", "large"}): "no gradient grows below a cut",
    frozenset({"decaying", "large"}): "a decay that takes them away is a remedy of large weights",
    frozenset({"forgotten", "climbing"}): "with a head alone the loss climbs too slowly to be seen",
    frozenset({"evaluated", "large"}): "in evaluation mode BatchNorm does not normalize",
    frozenset({"evaluated", "detached"}): "a normalization below a cut does not learn",
    frozenset({"evaluated", "forgotten"}): "a normalization that nobody holds does not learn",
    frozenset({"detached", "frozen"}): "what a cut keeps from learning is not meant to",
    frozenset({"detached", "forgotten"}): "what a cut keeps from learning is not meant to",
    frozenset({"frozen", "forgotten"}): "what is in no optimizer is not meant to learn",
    frozenset({"still", "climbing"}): "at this rate the loss does not climb",
    frozenset({"still", "decaying"}): "at this rate nothing decays",
    frozenset({"still", "thrown"}): "two rates",
    frozenset({"large", "constant"}): "two initializations",
    frozenset({"thrown", "climbing"}): "a loss that climbs by intent has no rate that is too high",
    frozenset({"thrown", "decaying"}): "weights that grow at once do not decay",
}
"""Pairs of which one hides the other."""

PAIRS = [p for p in itertools.combinations(FAULTS, 2) if frozenset(p) not in UNSEEN]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pair", [pytest.param(p, id="-and-".join(p)) for p in PAIRS])
def test_two_faults_are_two_causes(pair: tuple[str, str]) -> None:
    check_both(pair)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pair", [pytest.param(p, id="-and-".join(p)) for p in PAIRS[3::9]])
def test_a_sample_of_two_faults_are_two_causes(pair: tuple[str, str]) -> None:
    check_both(pair)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FAULTS)
def test_each_of_them_alone_is_one_cause(name: str) -> None:
    report = checked(FAULTS[name])
    causes = [f for f in report.findings if f.cause is None and f.severity > Severity.NOTE]

    assert report.findings[0].code in FAULTS[name].codes
    assert len(causes) == 1, [f"{f.code}: {f.message}" for f in causes]


def check_both(pair: tuple[str, str]) -> None:
    faults = [FAULTS[name] for name in pair]
    report = checked(*faults)
    causes = {f.code for f in report.findings if f.cause is None}

    said = [f"{f.code} (of {f.cause}): {f.message}" for f in report.findings]
    assert all(causes & set(fault.codes.split()) for fault in faults), said


def checked(*faults: Fault) -> Any:
    planted = {fault.network for fault in faults}

    def model() -> Net:
        net = Net(*(name in planted for name in ("detach", "listed", "evaluated", "doubled")))
        with torch.no_grad():
            for fault in faults:
                if fault.weights is not None:
                    fault.weights(net)
        return net

    def batch() -> tuple[Tensor, Tensor]:
        x, y = rows("digits")()
        for fault in faults:
            x = x if fault.inputs is None else fault.inputs(x)
        return x, y

    def optimizer(net: Net) -> torch.optim.Optimizer:
        settings = {"lr": 3e-3} | dict(pair for fault in faults for pair in fault.optimizer)
        held = net.head if any(fault.head_only for fault in faults) else net
        return torch.optim.AdamW([p for p in held.parameters() if p.requires_grad], **settings)

    loss = nn.CrossEntropyLoss()
    return gradlint.check(model, batch, loss, optimizer, cures=False, steps=40)
