"""Profiles of the gradient over depth: how flows are grouped and compared."""

from __future__ import annotations

import pytest

from gradlint.rules._gradient_profile import (
    Slope,
    growing,
    over_time,
    profiles,
    shrinking,
    unfed,
)
from gradlint.testing import chain, observe, trace_of
from gradlint.trace import Flow, Site


def flows(*decades: float, step: int = 0) -> tuple[Flow, ...]:
    return tuple(
        Flow(step, Site(f"l{i}", "Linear", i, f"l{i}"), {"weights": value})
        for i, value in enumerate(decades)
    )


def test_a_path_seen_again_begins_a_new_batch() -> None:
    one, two, later = flows(-1, 0), flows(-2, 0), flows(-3, 0, step=1)
    trace = trace_of(flows=(*one, *two, *later))

    assert list(profiles(trace)) == [one, two, later]
    assert list(profiles(trace_of())) == []


def test_shrinking_compares_the_best_fed_layers() -> None:
    slope = shrinking(flows(-9, -4, -8, -3, -2, -7, -1, -0.5))

    assert slope is not None
    assert (slope.early.site.path, slope.late.site.path) == ("l1", "l7")
    assert slope.decades == pytest.approx(-3.5)
    assert slope.shares[0] == pytest.approx(1.0 / 3.5)


def test_growing_takes_the_median_of_the_first_quarter() -> None:
    slope = growing(flows(2, 9, 3, 2.5, 2, 2, 1.5, 1.5, 1, 1, 0.5, 0))

    assert slope is not None
    assert slope.early.site.path == "l2"
    assert slope.late.site.path == "l9"
    assert slope.decades == pytest.approx(2.0)


def test_the_first_layer_is_shown_unless_it_is_off_the_profile() -> None:
    regular = shrinking(flows(-7, -6, -5, -4, -3, -2, -1, 0))
    query_first = shrinking(flows(-20, -6, -5, -4, -3, -2, -1, 0))

    assert regular is not None
    assert regular.early.site.path == "l1"
    assert regular.shown_early.site.path == "l0"
    assert regular.per_layer == pytest.approx(0.1)
    assert query_first is not None
    assert query_first.shown_early.site.path == "l1"


def test_the_later_half_of_training_counts_from_the_last_armed_step() -> None:
    trace = trace_of(
        flows=(
            *flows(-4, -3, -2, -1),
            *flows(-9, -6, -3, 0, step=19),
            *flows(-3, -2, -1, 0, step=20),
            *flows(-3, -2, -1, 0, step=40),
        )
    )

    verdict = over_time(trace, shrinking)

    assert verdict.initial is not None
    assert verdict.later is not None
    assert verdict.initial.decades == -3
    assert verdict.later.decades == -3
    assert verdict.later.step >= 20


def test_three_layers_make_no_profile() -> None:
    assert shrinking(flows(-9, -5, 0)) is None
    assert over_time(trace_of(flows=flows(-9, -5, 0)), shrinking).both == ()


def test_layers_in_front_of_the_profile_without_gradient_are_unfed() -> None:
    """Zeros behind its first layer, or at another step, are none of it."""
    operations = chain("linear", "linear", "linear", "linear", "linear", "linear")
    found = tuple(
        Flow(0, Site(str(i), "Linear", i, str(i)), {"weights": -2.0 * (5 - i)}) for i in (2, 3, 4)
    )
    slope = Slope(0, -4.0, 0.5, found[0], found[-1], found)
    norms = [
        *observe("pre_activation_grad_norm", "0", [0.0], step=0),
        *observe("pre_activation_grad_norm", "1", [1e-9], step=0),
        *observe("pre_activation_grad_norm", "1", [0.0], step=3),
        *observe("pre_activation_grad_norm", "5", [0.0], step=0),
    ]

    assert unfed(trace_of(norms, operations=operations), slope) == ("0",)


@pytest.mark.parametrize(
    ("decades", "geometric"),
    [
        pytest.param((-5, -4, -3, -2, -1, 0), True, id="all-alike"),
        pytest.param((-4.7, -4.3, -2.3, -2.2, -1.8, 0), False, id="two-small-last-layers"),
        pytest.param((-8, -7, -4, -3.5, -1, 0), True, id="two-make-less"),
        pytest.param((-4, -2, -2, -0.1, 0), True, id="four-in-between"),
        pytest.param((-4, -1.9, -1.5, -1.0, -0.5, 0), False, id="one-makes-more-than-half"),
    ],
)
def test_one_or_two_bottlenecks_are_no_geometric_series(decades, geometric) -> None:
    slope = shrinking(flows(*decades))

    assert slope is not None
    assert slope.geometric is geometric
