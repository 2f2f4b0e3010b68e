"""gradient_signal_to_noise against its definition, and against gradients of a known noise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from gradlint.errors import MetricError
from gradlint.metrics.gradient_signal_to_noise import gradient_signal_to_noise
from tests.strategies import every_dtype, factors, tensors

LOOSE = 1e-6
"""Relative error allowed where a sum nearly cancels."""


def by_definition(samples: Tensor) -> float:
    """The same by loops."""
    rows = samples.tolist()
    count = len(rows)
    mean = [math.fsum(column) / count for column in zip(*rows, strict=True)]
    variance = math.fsum(
        (value - m) ** 2 for row in rows for value, m in zip(row, mean, strict=True)
    ) / (count - 1)
    signal = math.fsum(m * m for m in mean) - variance / count
    return signal / variance if variance else math.nan


@given(tensors(min_dims=2, max_dims=2, min_side=2), factors())
def test_is_the_definition_whatever_the_scale(samples: Tensor, factor: float) -> None:
    expected = by_definition(samples)
    if not math.isfinite(expected) or expected > 1e6:
        return

    found = float(gradient_signal_to_noise(factor * samples))

    assert found == pytest.approx(expected, rel=LOOSE, abs=LOOSE)


def gradients(signal: float, steps: int = 10, entries: int = 4096) -> Tensor:
    """Gradients of a common direction of this squared norm in noise of squared norm one."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(entries, generator=generator, dtype=torch.float64)
    noise = torch.randn(steps, entries, generator=generator, dtype=torch.float64)
    common: Tensor = math.sqrt(signal) * direction / direction.norm()
    return common + noise / math.sqrt(entries)


@pytest.mark.parametrize("signal", [0.0, 0.1, 1.0, 10.0])
def test_finds_the_signal_that_was_put_in(signal: float) -> None:
    # Of 4096 entries and 10 steps: the noise's own squared norm is known to 1/10 · √(2/4096).
    found = float(gradient_signal_to_noise(gradients(signal)))

    assert found == pytest.approx(signal, rel=0.1, abs=0.01)


def test_gradients_that_alternate_are_less_than_noise() -> None:
    alternating = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]).repeat(4, 1)

    assert float(gradient_signal_to_noise(alternating)) == pytest.approx(-1 / 8)


@every_dtype
def test_takes_every_dtype(dtype: torch.dtype) -> None:
    samples = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=dtype)

    found = gradient_signal_to_noise(samples)

    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(1.5)


def test_neither_overflows_nor_underflows() -> None:
    samples = torch.tensor([[3.0, 0.0], [1.0, 0.0]], dtype=torch.float64)

    assert float(gradient_signal_to_noise(1e300 * samples)) == pytest.approx(1.5)
    assert float(gradient_signal_to_noise(1e-300 * samples)) == pytest.approx(1.5)


def test_of_nothing_but_zeros_is_nan() -> None:
    assert math.isnan(float(gradient_signal_to_noise(torch.zeros(3, 4))))


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 0), (2, 2, 2)])
def test_refuses_what_is_no_sequence_of_gradients(shape: tuple[int, ...]) -> None:
    with pytest.raises(MetricError, match="two or more steps"):
        gradient_signal_to_noise(torch.zeros(shape))
