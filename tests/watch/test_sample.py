"""What a sample of a weight says of its whole: the error that `SAMPLE` was chosen by."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import nn

from gradlint.watching.sampling import SAMPLE, sample, staged


def errors(optimizer: str) -> list[float]:
    """Relative error of the sampled update ratio, for each large weight and each of ten steps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    stepping = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-3)
    inputs, targets = torch.randn(128, 784), torch.randint(0, 10, (128,))
    found = []
    for _ in range(10):
        before = [p.detach().clone() for p in model.parameters()]
        stepping.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        stepping.step()
        for old, new in zip(before, model.parameters(), strict=True):
            if old.numel() > SAMPLE:
                exact = (new.detach() - old).norm() / old.norm()
                seen = (sample(new) - sample(old)).norm() / sample(old).norm()
                found.append(abs(float(seen / exact) - 1))
    return found


def test_a_sample_tells_the_update_ratio_to_a_few_percent() -> None:
    for optimizer in ("Adam", "SGD"):
        found = errors(optimizer)

        assert statistics.median(found) < 0.03
        assert max(found) < 0.15


WIDE = torch.arange(12.0 * 3000).reshape(3000, 12)


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.arange(24.0).reshape(2, 3, 4), id="whole"),
        pytest.param(WIDE[:100, 3:4], id="a-column"),
        pytest.param(WIDE[:100, 3], id="a-flat-column"),
        pytest.param(WIDE[:, 3:4], id="a-long-column"),
        pytest.param(WIDE[:, 3], id="a-long-flat-column"),
        pytest.param(WIDE[:, :6], id="columns"),
        pytest.param(WIDE.t(), id="transposed"),
        pytest.param(WIDE[::2, ::3], id="strided"),
        pytest.param(torch.ones(1).expand(5000), id="expanded"),
        pytest.param(torch.ones(1, 1).expand(100, 1), id="an-expanded-column"),
        pytest.param(torch.ones(3, 4, 5, 6).to(memory_format=torch.channels_last), id="images"),
        pytest.param(WIDE.reshape(10, 10, 30, 12).transpose(0, 3), id="four-axes-exchanged"),
        pytest.param(torch.tensor(3.0), id="a-scalar"),
    ],
)
def test_every_layout_has_a_sample_of_its_own_entries(tensor: torch.Tensor) -> None:
    taken = staged(tensor)

    assert taken.ndim == 1
    assert taken.is_contiguous()
    assert taken.numel() == min(tensor.numel(), SAMPLE)
    assert torch.isin(taken, tensor).all()
    assert taken.unique().numel() == min(taken.numel(), tensor.unique().numel())
