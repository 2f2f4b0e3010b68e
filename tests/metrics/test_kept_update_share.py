from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradlint.errors import MetricError
from gradlint.metrics.kept_update_share import kept_update_share


def test_a_weight_that_only_the_optimizer_changes_keeps_all() -> None:
    begins = torch.randn(9, 32).cumsum(0)

    assert kept_update_share(begins, begins[1:]).item() == pytest.approx(1.0)


def test_a_weight_that_is_put_back_keeps_nothing() -> None:
    begins = torch.randn(1, 32).repeat(9, 1)

    assert kept_update_share(begins, begins[:8] + torch.randn(8, 32)).item() == 0.0


@given(st.floats(0.0, 1.0))
def test_an_average_in_its_place_keeps_one_less_its_decay(decay: float) -> None:
    torch.manual_seed(0)
    begins, ends = [torch.randn(64, dtype=torch.float64)], []
    for _ in range(8):
        ends.append(begins[-1] + torch.randn(64, dtype=torch.float64))
        begins.append(decay * begins[-1] + (1 - decay) * ends[-1])

    share = kept_update_share(torch.stack(begins), torch.stack(ends)).item()

    assert share == pytest.approx(1 - decay, abs=1e-9)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([-1.0, 1.0, -1.0, 1.0, 0.3], id="both-bounds"),
        pytest.param([0.0, 0.0, 0.0, 2.0, 1.0], id="a-mask"),
        pytest.param([0.5] * 5, id="one-value"),
    ],
)
def test_entries_held_by_a_bound_tell_nothing(entries: list[float]) -> None:
    begins = torch.tensor([entries, entries])

    assert math.isnan(kept_update_share(begins, begins[:1] + 0.1).item())


def test_two_of_five_entries_at_a_bound_tell_all_the_same() -> None:
    begins = torch.tensor([[0.0, 1.0, 0.2, 0.3, 0.4]] * 2)

    assert kept_update_share(begins, begins[:1] + 0.1).item() == 0.0


def test_no_update_at_all_tells_nothing() -> None:
    begins = torch.arange(5.0).repeat(2, 1)

    assert math.isnan(kept_update_share(begins, begins[:1]).item())


@pytest.mark.parametrize(
    ("begins", "ends"),
    [((3, 4), (3, 4)), ((3, 4), (2, 5)), ((4,), (3,)), ((1, 4), (0, 4))],
)
def test_shapes_that_do_not_fit_are_refused(begins: tuple[int, ...], ends: tuple[int, ...]) -> None:
    with pytest.raises(MetricError, match=r"shapes \(K \+ 1, S\) and \(K, S\), got"):
        kept_update_share(torch.zeros(begins), torch.zeros(ends))
