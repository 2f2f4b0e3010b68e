"""gradient_magnitude_p05 to _p95 against sorted lists."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradlint.metrics import all_metrics
from gradlint.metrics.gradient_magnitude import ENTRIES

SHARES = {f"gradient_magnitude_p{share:02}": share / 100 for share in (5, 25, 50, 75, 95)}


@pytest.mark.parametrize("name", SHARES)
@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=60))
def test_the_share_of_the_entries_does_not_exceed_it(name: str, values: list[float]) -> None:
    found = float(all_metrics()[name](torch.tensor(values)))

    ordered = sorted(abs(v) for v in values)
    assert found == ordered[round(SHARES[name] * (len(values) - 1))]


def test_a_large_normal_gradient_has_the_quantiles_of_the_normal_distribution() -> None:
    gradient = torch.randn(300, 400, generator=torch.Generator().manual_seed(0))
    assert gradient.numel() > ENTRIES

    half_normal = {5: 0.0627, 25: 0.3186, 50: 0.6745, 75: 1.1503, 95: 1.96}
    for share, exact in half_normal.items():
        found = float(all_metrics()[f"gradient_magnitude_p{share:02}"](gradient))
        assert found == pytest.approx(exact, rel=0.08)


def test_zeros_count_and_a_nan_is_the_largest() -> None:
    gradient = torch.tensor([0.0, 0.0, 0.0, math.nan])

    assert float(all_metrics()["gradient_magnitude_p50"](gradient)) == 0
    assert math.isnan(float(all_metrics()["gradient_magnitude_p95"](gradient)))
