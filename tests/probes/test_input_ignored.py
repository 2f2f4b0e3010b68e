"""Does the output depend on the input at all?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.probes.input_ignored import FILLED, change_of, input_ignored
from tests.observing import mlp

FIRST, SECOND = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))


def run(model: nn.Module, batch: Tensor) -> Any:
    return model(batch)


def probed(model: nn.Module) -> Mapping[str, Any] | None:
    return input_ignored(model, run, FIRST, SECOND, 10)


def test_a_model_that_listens_changes_with_its_input() -> None:
    model = mlp()
    expected = (model(FIRST) - model(SECOND)).norm() / model(FIRST).norm()

    found = probed(model)

    assert found is not None
    assert found["output_change"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found["forward_ignored_from"] is None
    assert found["steps"] == 10
    assert list(found["layers"]) == ["0", "1", "2", "3", "4", "5"]
    assert all(change > 0.01 for change in found["layers"].values())


class Deaf(nn.Module):
    """Overwrites what the stem says by a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros_like(self.stem(x))
        return self.head(torch.tanh(self.body(hidden)))


def test_a_model_that_does_not_is_deaf_from_a_layer_on() -> None:
    found = probed(Deaf())

    assert found is not None
    assert found["output_change"] == 0
    assert found["layers"]["stem"] > 0.1
    assert found["forward_ignored_from"] == "body"


def test_a_dead_rectifier_is_where_the_input_is_lost() -> None:
    model = mlp()
    nn.init.constant_(model[3].bias, -1000.0)

    found = probed(model)

    assert found is not None
    assert found["output_change"] == 0
    assert found["forward_ignored_from"] == "4"


def test_an_output_of_zeros_is_no_change() -> None:
    model = mlp()
    nn.init.zeros_(model[5].weight)
    nn.init.zeros_(model[5].bias)

    found = probed(model)

    assert found is not None
    assert found["output_change"] == 0
    assert found["forward_ignored_from"] == "5"


def test_dropout_is_off_and_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.9), nn.Linear(6, 2))
    before = {name: t.clone() for name, t in model.state_dict().items()}

    first, second = probed(model), probed(model)

    assert first == second
    assert model.training
    assert all(t.equal(before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_beside_the_output_does_not_hide_it() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = self.fc(x)
            return {"loss": logits.mean(), "logits": logits}

    found = probed(Both())

    assert found is not None
    assert found["output_change"] > 0.1


class Filled(nn.Module):
    """Fills what no sample may choose with a number as far from its scores as masks have it."""

    def __init__(self, fill: float, *, deaf: bool = False) -> None:
        super().__init__()
        self.fc, self.fill, self.deaf = nn.Linear(6, 4), fill, deaf

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(0 * x if self.deaf else x)
        return scores.masked_fill(torch.arange(4) > 1, self.fill)


@pytest.mark.parametrize("fill", [-1e4, -1e9, torch.finfo(torch.float32).min, 1e30])
def test_what_is_filled_in_hides_no_change_beside_it(fill: float) -> None:
    open_, deaf = probed(Filled(fill)), probed(Filled(fill, deaf=True))

    assert open_ is not None
    assert open_["output_change"] > 0.1
    assert deaf is not None
    assert deaf["output_change"] == 0


def test_a_change_of_large_numbers_alone_is_one() -> None:
    before, after = torch.tensor([1.0, FILLED]), torch.tensor([1.0, 2 * FILLED])

    assert change_of(before, after) == pytest.approx(1, rel=1e-6)
    assert change_of(before, before) == 0
    assert change_of(before, torch.tensor([1.5, FILLED])) == 0.5
    assert change_of(after, torch.tensor([3.0, 1.0])) == 2
    assert math.isnan(change_of(before, torch.tensor([1.0, -math.inf])))


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).mean()


class Growing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[: 3 if x is FIRST else 4]


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * math.inf


@pytest.mark.parametrize("model", [Scalar(), Growing(), Infinite()], ids=repr)
def test_outputs_that_cannot_be_compared_say_nothing(model: nn.Module) -> None:
    assert probed(model) is None


def test_a_model_that_keeps_its_output_can_be_probed() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.fc(x)
            return self.last

    model = Keeping()
    model(FIRST)

    assert probed(model) is not None


class Graph(nn.Module):
    """Smooths what all nodes have over a graph that it is given, or knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.nodes = nn.Parameter(torch.randn(8, 8))

    def forward(self, graph: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.layer(self.nodes)
        return hidden if graph is None else graph @ hidden


@pytest.mark.parametrize("given", [(), (torch.eye(8),)], ids=["nothing", "one-graph"])
def test_a_model_that_is_given_the_same_both_times_ignores_nothing(given: Any) -> None:
    def links(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(*given)[:, 0] * batch[:, 0]).sum()

    assert input_ignored(Graph(), links, FIRST, SECOND, 10) is None


def test_a_model_that_is_given_another_graph_and_only_adds_zero_of_it_ignores_it() -> None:
    class Deafer(Graph):
        def forward(self, graph: Tensor | None = None) -> Tensor:
            return self.layer(self.nodes) + (0.0 if graph is None else 0 * graph[:, :4])

    def other(model: nn.Module, batch: Tensor) -> Any:
        return model(batch[:, :1] @ batch[:, :1].T)

    found = input_ignored(Deafer(), other, FIRST, SECOND, 10)

    assert found is not None
    assert found["output_change"] == 0


def test_a_model_that_is_given_zeros_both_times_ignores_its_batches() -> None:
    found = input_ignored(mlp(), lambda model, x: model(torch.zeros_like(x)), FIRST, SECOND, 10)

    assert found is not None
    assert found["output_change"] == 0
