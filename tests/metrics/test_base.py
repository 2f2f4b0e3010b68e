"""The sample, the norm and the spread that metrics share."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradlint.metrics import Metric, Tap, all_metrics, metrics_at
from gradlint.metrics.base import SAMPLE, centered, dense, l2_norm, sampled, spread
from tests.strategies import ROUNDING, entries, norm_of, std_of, tensors


def test_a_small_tensor_is_read_whole_and_in_order() -> None:
    tensor = torch.arange(24.0).reshape(2, 3, 4)

    assert sampled(tensor).tolist() == list(range(24))


def test_exactly_the_sample_size_is_read_whole() -> None:
    assert sampled(torch.zeros(SAMPLE)).numel() == SAMPLE


@pytest.mark.parametrize("shape", [(1024, 512), (64, 48, 768), (SAMPLE + 1,), (7, 3 * SAMPLE)])
def test_a_large_tensor_is_sampled_within_the_limit(shape: tuple[int, ...]) -> None:
    sample = sampled(torch.zeros(shape, dtype=torch.float16))

    assert SAMPLE // 4 <= sample.numel() <= SAMPLE


@pytest.mark.parametrize(("rows", "width"), [(4096, 256), (1024, 768), (512, 1000)])
def test_the_sample_comes_by_every_unit(rows: int, width: int) -> None:
    unit = torch.arange(width, dtype=torch.float32).expand(rows, width)

    seen = sampled(unit).unique()

    assert seen.numel() == width


def test_the_sample_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()

    sampled(torch.zeros(SAMPLE * 2))

    assert torch.equal(torch.get_rng_state(), before)


def test_dense_detaches_and_reads_the_stored_values_of_a_sparse_tensor() -> None:
    indices = torch.tensor([[0, 2, 0]])
    sparse = torch.sparse_coo_tensor(
        indices, torch.tensor([1.0, 2.0, 3.0]), (4,), check_invariants=True
    )

    values = dense(sparse.requires_grad_())

    assert values.tolist() == [4.0, 2.0]  # the two entries at index 0 are one
    assert not values.requires_grad


def test_dense_reads_a_complex_number_as_two() -> None:
    assert entries(dense(torch.tensor([1 + 2j]).conj())) == [1.0, -2.0]


def test_dense_reads_compressed_layouts_whole() -> None:
    matrix = torch.tensor([[0.0, 2.0], [3.0, 0.0]])

    with pytest.warns(UserWarning, match="beta"):
        compressed = matrix.to_sparse_csr()

    assert torch.equal(dense(compressed), matrix)


@given(tensors())
def test_l2_norm_is_the_root_of_the_sum_of_squares(tensor: torch.Tensor) -> None:
    assert float(l2_norm(tensor)) == pytest.approx(norm_of(entries(tensor)), rel=ROUNDING)


def test_l2_norm_neither_overflows_nor_underflows_where_float32_does() -> None:
    assert float(l2_norm(torch.full((100,), 1e38))) == pytest.approx(1e39)
    assert float(l2_norm(torch.full((100,), 1e-38))) == pytest.approx(1e-37)
    assert float(l2_norm(torch.full((900,), 6e4, dtype=torch.float16))) == pytest.approx(
        1.8e6, 1e-3
    )


@given(tensors())
def test_spread_is_the_population_standard_deviation(tensor: torch.Tensor) -> None:
    expected = std_of(entries(tensor))

    # The mean of entries up to 1000 rounds by about 1e-13 of them, whatever the spread.
    assert float(spread(tensor.reshape(-1))) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.floats(-1e30, 1e30), st.integers(1, 1000))
def test_a_constant_is_centered_to_exact_zeros(value: float, count: int) -> None:
    assert not centered(torch.full((count,), value, dtype=torch.float64)).any()


def test_spread_of_nothing_is_nan_and_warns_of_nothing() -> None:
    assert math.isnan(float(spread(torch.empty(0, dtype=torch.float64))))


def test_metrics_are_found_by_looking_into_the_folder() -> None:
    metrics = all_metrics()

    assert len(metrics) >= 26
    assert all(isinstance(metric, Metric) for metric in metrics.values())
    assert all(name == metric.name for name, metric in metrics.items())
    assert sum(len(metrics_at(tap)) for tap in Tap) == len(metrics)


@pytest.mark.parametrize("name", sorted(all_metrics()))
def test_a_metric_is_documented_and_has_a_unit(name: str) -> None:
    metric = all_metrics()[name]

    assert metric.unit
    assert "Args:" in metric.doc
    assert "Returns:" in metric.doc
