"""underflow_share against a loop, and against what float16 does to a normal distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradlint.metrics.underflow_share import underflow_share

SMALLEST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=12),
    st.sampled_from([torch.float16, torch.bfloat16]),
)
def test_is_the_share_of_squares_of_entries_of_two_bits(
    units: list[int], dtype: torch.dtype
) -> None:
    gradient = torch.tensor(units, dtype=torch.float64).mul(SMALLEST[dtype]).to(dtype)
    total = sum(u * u for u in units)
    expected = sum(u * u for u in units if abs(u) <= 2) / total if total else 0.0

    assert float(underflow_share(gradient)) == pytest.approx(expected, abs=1e-12)


def flushed(scale: float) -> tuple[float, float]:
    """Share of zeros, and `underflow_share`, of a normal distribution of this size in float16."""
    generator = torch.Generator().manual_seed(0)
    exact = scale * torch.randn(100_000, generator=generator, dtype=torch.float64)
    short = exact.to(torch.float16)
    return float((short == 0).double().mean()), float(underflow_share(short))


@pytest.mark.parametrize(
    ("scale", "over_half"), [(1e-4, False), (1e-6, False), (1.5e-7, False), (7e-8, True)]
)
def test_is_over_half_where_a_quarter_of_a_normal_gradient_has_become_zero(
    scale: float, over_half: bool
) -> None:
    zeros, share = flushed(scale)

    assert (share > 0.5) is over_half
    assert (zeros > 0.25) is over_half


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_longer_formats_are_not_read(dtype: torch.dtype) -> None:
    assert float(underflow_share(torch.tensor([1e-40, torch.nan], dtype=dtype))) == 0


def test_bfloat16_holds_what_float16_loses() -> None:
    small = torch.full((8,), 1e-12)

    assert float(underflow_share(small.to(torch.bfloat16))) == 0


def test_zeros_prove_nothing() -> None:
    gradient = torch.zeros(100, dtype=torch.float16)
    gradient[0] = 1.0

    assert float(underflow_share(gradient)) == 0
    assert float(underflow_share(torch.zeros(5, dtype=torch.float16))) == 0
    assert float(underflow_share(torch.zeros(0, dtype=torch.float16))) == 0


def test_classes_a_softmax_rules_out_are_not_missed() -> None:
    logits = (8 * torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))).half()
    logits.requires_grad_()
    loss = nn.functional.cross_entropy(logits.float(), torch.arange(64))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None

    assert float((logits.grad == 0).double().mean()) > 0.5
    assert float(underflow_share(logits.grad)) < 1e-3
