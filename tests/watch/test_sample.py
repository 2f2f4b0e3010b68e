"""What a sample of a weight says of its whole: the error that `SAMPLE` was chosen by."""

from __future__ import annotations

import statistics

import torch
from torch import nn

from gradlint.watching.sampling import SAMPLE, sample


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
