"""batch_statistics_gap against its definition, and what BatchNorm itself keeps."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gradlint.metrics.batch_statistics_gap import batch_statistics_gap
from tests.strategies import every_dtype

MEANS = st.floats(-10, 10)
VARIANCES = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(MEANS, VARIANCES, MEANS, VARIANCES), min_size=1, max_size=9))
def test_is_the_definition(channels: list[tuple[float, float, float, float]]) -> None:
    eps = 1e-5
    gaps = sorted(
        max(
            abs(mean - running) / math.sqrt(var + eps),
            abs(math.log(math.sqrt((batch_var + eps) / (var + eps)))),
        )
        for running, var, mean, batch_var in channels
    )
    columns = [torch.tensor(c, dtype=torch.float64) for c in zip(*channels, strict=True)]

    found = float(batch_statistics_gap(*columns))

    assert found == pytest.approx(statistics.median_low(gaps), rel=1e-9, abs=1e-9)


def after(steps: int, momentum: float) -> float:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(16, momentum=momentum)
    batch = torch.empty(0)
    for _ in range(steps):
        batch = 5 + 3 * torch.randn(512, 16)
        norm(batch)
    running: tuple[Tensor | None, Tensor | None] = (norm.running_mean, norm.running_var)
    assert running[0] is not None
    assert running[1] is not None
    return float(batch_statistics_gap(running[0], running[1], batch.mean(0), batch.var(0)))


def test_falls_as_running_statistics_arrive() -> None:
    assert after(1, 0.1) > 1
    assert after(50, 0.1) < 0.2
    assert after(50, 0.0) == pytest.approx(5, rel=0.05)


@every_dtype
def test_takes_every_dtype(dtype: torch.dtype) -> None:
    zero, one = torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)

    assert float(batch_statistics_gap(zero, one, zero, one)) == 0


def test_few_channels_without_variance_do_not_matter() -> None:
    zero, one = torch.zeros(5), torch.ones(5)
    dead = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])

    assert float(batch_statistics_gap(zero, one, zero, dead)) == 0
