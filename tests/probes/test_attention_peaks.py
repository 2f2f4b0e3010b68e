"""How sharp has attention become?"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.metrics.attention_peak import attention_peak
from gradlint.probes.attention_peaks import attention_peaks

X = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(0))


class Attend(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.scale = scale

    def weights(self, x: Tensor) -> Tensor:
        scores: Tensor = self.scale * self.q(x) @ self.k(x).transpose(1, 2)
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.weights(x) @ self.v(x)
        return mixed


def run(model: nn.Module, batch: Tensor) -> Any:
    return model(batch).square().mean(), None, None


@pytest.mark.parametrize("scale", [0.25, 100.0])
def test_is_the_metric_of_the_trained_weights(scale: float) -> None:
    model = Attend(scale)

    found = attention_peaks(model, run, [X])

    assert found is not None
    assert list(found.values()) == [pytest.approx(float(attention_peak(model.weights(X))))]


def test_a_model_without_attention_has_none() -> None:
    assert attention_peaks(nn.Linear(16, 2), run, [X]) is None


def test_the_model_stays_as_it_is() -> None:
    model = Attend(1.0)
    before = copy.deepcopy(model.state_dict())

    attention_peaks(model, run, [X])

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model._forward_hooks
