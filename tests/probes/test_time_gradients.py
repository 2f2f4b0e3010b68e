"""How far back in time does a recurrent layer's gradient reach?"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.probes.time_gradients import time_gradients

X = torch.randn(8, 30, 3, generator=torch.Generator().manual_seed(0))


class Last(nn.Module):
    """Reads the last output of a recurrent layer."""

    def __init__(self, layer: nn.RNNBase, gain: float = 1.0, everywhere: bool = False) -> None:
        super().__init__()
        self.rnn, self.everywhere = layer, everywhere
        for name, weight in layer.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))[0]
        if not self.rnn.batch_first:
            h = h.transpose(0, 1)
        return h if self.everywhere else h[:, -1]


def run(model: nn.Module, batch: Tensor) -> Any:
    return model(batch.clone()).square().mean(), None, None


def probed(model: nn.Module) -> Any:
    torch.manual_seed(0)
    return time_gradients(model, run, [X])


def plain(**options: Any) -> nn.RNN:
    torch.manual_seed(0)
    return nn.RNN(3, 16, batch_first=True, **options)


def test_the_ratio_is_that_of_the_inputs_gradients() -> None:
    model = Last(plain())
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().mean(), [x])
    norms = gradient.norm(dim=(0, 2))

    found = probed(model)

    assert found["rnn"]["steps"] == int(norms.argmax())
    early = norms[: int(norms.argmax()) // 4].median()
    assert found["rnn"]["ratio"] == pytest.approx(float(early / norms.max()), rel=1e-4)
    assert found["rnn"]["kind"] == "RNN"


def test_small_recurrent_weights_forget_geometrically() -> None:
    kept, lost = probed(Last(plain()))["rnn"], probed(Last(plain(), gain=0.1))["rnn"]

    assert kept["ratio"] > 1e-3
    assert lost["ratio"] < 1e-20


def test_time_may_come_first() -> None:
    torch.manual_seed(0)
    model = Last(nn.RNN(3, 16), gain=0.1)

    assert probed(model)["rnn"]["ratio"] < 1e-20


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(nn.Linear(3, 3), id="no-recurrence"),
        pytest.param(Last(plain(bidirectional=True)), id="two-directions"),
    ],
)
def test_where_time_has_no_direction_it_says_nothing(model: nn.Module) -> None:
    assert probed(model) is None


def test_a_loss_at_every_step_reaches_every_step() -> None:
    found = probed(Last(plain(), gain=0.1, everywhere=True))

    assert found is None or found["rnn"]["ratio"] > 0.1


def test_the_model_and_the_batch_stay_as_they_are() -> None:
    model = Last(plain())
    before = copy.deepcopy(model.state_dict())

    probed(model)

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not X.requires_grad
