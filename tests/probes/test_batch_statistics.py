"""Are BatchNorm's running statistics those of the batches?"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.probes.batch_statistics import batch_statistics

BATCHES = list(4 + 2 * torch.randn(3, 64, 8, generator=torch.Generator().manual_seed(0)))


def run(model: nn.Module, batch: Tensor) -> Any:
    return model(batch)


def trained(model: nn.Module, steps: int) -> nn.Module:
    for step in range(steps):
        model(BATCHES[step % len(BATCHES)])
    return model


def probed(model: nn.Module) -> Any:
    return batch_statistics(model, run, BATCHES)


def test_statistics_that_follow_have_no_gap() -> None:
    found = probed(trained(nn.Sequential(nn.BatchNorm1d(8)), 60))

    assert found["0"]["gap"] < 0.1
    assert found["0"]["settled"] < 0.1
    assert (found["0"]["momentum"], found["0"]["updates"], found["0"]["samples"]) == (0.1, 60, 192)


def test_what_is_left_of_the_beginning_is_taken_off() -> None:
    found = probed(trained(nn.Sequential(nn.BatchNorm1d(8, momentum=0.001)), 30))

    assert found["0"]["gap"] > 2
    assert found["0"]["settled"] < 0.1


def test_statistics_that_never_move_are_where_they_began() -> None:
    found = probed(trained(nn.Sequential(nn.BatchNorm1d(8, momentum=0.0)), 30))

    assert found["0"]["gap"] == pytest.approx(found["0"]["settled"]) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(nn.Linear(8, 8), id="no-batchnorm"),
        pytest.param(nn.Sequential(nn.BatchNorm1d(8)).eval(), id="in-evaluation-mode"),
        pytest.param(nn.BatchNorm1d(8, track_running_stats=False), id="tracks-nothing"),
    ],
)
def test_where_there_is_nothing_to_compare_it_says_nothing(model: nn.Module) -> None:
    assert probed(model) is None


def test_a_layer_called_twice_is_left_out() -> None:
    norm = nn.BatchNorm1d(8)

    assert probed(nn.Sequential(norm, norm)) is None


def test_the_model_stays_as_it_is() -> None:
    model = trained(nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2)), 5)
    before = copy.deepcopy(model.state_dict())

    probed(model)

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
