"""attention_peak against the definition, and against softmaxes of known scores."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from gradlint.metrics.attention_peak import attention_peak


def weights(std: float, *shape: int) -> Tensor:
    return (std * torch.randn(shape, generator=torch.Generator().manual_seed(0))).softmax(-1)


def test_is_the_median_of_the_largest_weight() -> None:
    given = weights(2.0, 3, 2, 9, 12)

    peaks = [float(row.max()) for row in given.reshape(-1, 12)]

    assert float(attention_peak(given)) in (statistics.median_low(peaks), statistics.median(peaks))


@pytest.mark.parametrize(("std", "peak"), [(1, 0.18), (4, 0.66), (8, 0.91), (16, 0.99)])
def test_scores_of_a_known_spread_among_24_keys(std: float, peak: float) -> None:
    assert float(attention_peak(weights(std, 2000, 24))) == pytest.approx(peak, abs=0.02)


def test_queries_that_see_few_keys_do_not_count() -> None:
    scores = torch.zeros(4, 12, 12)
    causal = scores.masked_fill(torch.ones(12, 12).triu(1).bool(), -math.inf).softmax(-1)

    assert float(attention_peak(causal)) == pytest.approx(1 / 10)  # of 8 to 12 keys
    assert math.isnan(float(attention_peak(causal[:, :7, :7])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_gives_a_number_of_double_precision(dtype: torch.dtype) -> None:
    peak = attention_peak(weights(1.0, 5, 9, 9).to(dtype))

    assert peak.dtype is torch.float64
    assert 1 / 9 <= float(peak) <= 1


def test_of_nothing_it_is_nan() -> None:
    assert math.isnan(float(attention_peak(torch.zeros(0, 9, 9))))
