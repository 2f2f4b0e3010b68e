"""Thinning: which steps of a long run are kept."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.observation import MODEL, Observation, Site
from gradlint.thinning import kept_steps, thinned

FC1 = Site("fc1", "Linear", 0, "fc1")
steps = st.lists(st.integers(0, 3000), min_size=1, max_size=200)


@given(steps, st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_the_first_and_the_last_step_stay_and_the_bound_holds(given_steps, first, last, at_most):
    kept = kept_steps(given_steps, first, last, at_most)

    assert {min(given_steps), max(given_steps)} <= kept <= set(given_steps)
    assert len(kept) <= max(2, at_most)
    assert len(kept) == min(len(set(given_steps)), max(2, at_most))


@given(steps, st.integers(2, 50))
def test_thinning_twice_is_thinning_once(given_steps, at_most):
    kept = kept_steps(given_steps, at_most=at_most)

    assert kept_steps(kept, at_most=at_most) == kept


def test_both_ends_are_dense_and_the_middle_is_log_spaced():
    kept = sorted(kept_steps(range(20_000)))

    assert len(kept) == 512
    assert kept[:32] == list(range(32))
    assert kept[-64:] == list(range(19_936, 20_000))
    ratios = [b / a for a, b in pairwise(kept[200:-64])]
    assert max(ratios) / min(ratios) < 1.05


def test_a_run_thinned_as_it_goes_is_as_even_as_one_thinned_at_the_end():
    kept: frozenset[int] = frozenset()
    for start in range(0, 20_000, 100):
        kept = kept_steps([*kept, *range(start, start + 100)])

    ordered = sorted(kept)
    assert len(ordered) == 512
    middle = [s for s in ordered if 1000 <= s <= 19_000]
    ratios = [b / a for a, b in pairwise(middle)]
    assert max(ratios) < 1.1


def test_steps_asked_for_are_kept():
    assert {500, 501} <= kept_steps(range(1000), 2, 2, 20, always=(500, 501, 5000))


def test_a_short_run_stays_as_it_is():
    found = [Observation("loss", MODEL, step, 1.0) for step in range(500)]

    assert thinned(found) == tuple(found)


def test_every_metric_is_thinned_by_itself_and_the_order_stays():
    found = [Observation("activation_std", FC1, step, 1.0) for step in range(1000)]
    found.insert(700, Observation("dead_fraction", FC1, 700, 0.9))

    kept = thinned(found, at_most=100)

    assert [o.step for o in kept if o.metric == "dead_fraction"] == [700]
    assert len(kept) == 101
    assert list(kept) == [o for o in found if o in set(kept)]


def test_all_values_of_a_step_stay_together():
    found = [Observation("activation_std", FC1, s, v) for s in range(100) for v in (1.0, 2.0)]

    kept = thinned(found, at_most=10)

    assert len(kept) == 20
    assert [o.value for o in kept] == [1.0, 2.0] * 10


@pytest.mark.parametrize(("metric", "site"), [("loss", MODEL), ("stream_loss", FC1)])
def test_a_series_keeps_more_and_its_peak_and_its_first_fault(metric, site):
    values = dict.fromkeys(range(10_000), 1.0) | {5001: 99.0, 7001: math.nan, 7002: math.nan}
    found = [Observation(metric, site, step, value) for step, value in values.items()]

    kept = thinned(found, at_most=20, series_at_most=200)

    assert len(kept) == 200
    assert {5001, 7001} <= {o.step for o in kept}
