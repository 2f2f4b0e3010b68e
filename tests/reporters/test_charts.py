"""Bars, gauges, profiles and curves: where each mark must stand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlint.reporters import charts
from gradlint.reporters.base import count, number
from gradlint.reporters.findings import decade_bars
from gradlint.reporters.layers import elide

ANY = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, ""), (1e-9, "▏"), (0.5, "██"), (0.53125, "██▏"), (1.0, "████"), (7.0, "████")],
)
def test_a_bar_is_as_long_as_its_share(share, drawn):
    assert charts.bar(share, 4) == drawn


@pytest.mark.parametrize(
    ("value", "drawn"),
    [
        (None, "··───··"),
        (math.nan, "··───··"),
        (1e-3, "●·───··"),
        (1e-1, "··●──··"),
        (1e1, "··──●··"),
        (1e3, "··───·●"),
        (1e-4, "‹·───··"),
        (1e9, "··───·›"),
        (0.0, "‹·───··"),
    ],
)
def test_a_gauge_marks_the_value_on_a_logarithmic_scale(value, drawn):
    gauge = charts.gauge(value, low=1e-3, high=1e3, band=(1e-1, 1e1), width=7)

    assert gauge.plain == drawn


def test_a_profile_is_logarithmic_and_level_where_values_are_alike():
    assert charts.profile([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]) == "▁▂▃▄▅▆▇█"
    assert len(set(charts.profile([0.58, 0.60, 0.61, 0.59]))) <= 2


def test_faults_show_as_themselves():
    assert charts.profile([1.0, 0.0, math.nan, math.inf])[1:] == "0××"
    assert charts.sparkline([1.0, math.nan, -1.0], 3) == "█×▁"


def test_a_flat_or_negative_loss_is_drawn_too():
    assert len(set(charts.sparkline([2.3, 2.301, 2.299], 3))) == 1
    assert charts.sparkline([-1.0, -2.0], 2) == "█▁"


def test_a_curve_has_its_range_on_the_axis():
    rows = charts.curve([1.0, 1e-4, 1e-8], width=40, height=5)

    assert len(rows) == 5
    assert rows[0].startswith("1e+00 ┤█")
    assert rows[-1].startswith("1e-08 ┤")
    assert charts.curve([1.0, 1e-4, math.nan], width=40)[-1].endswith("××××")


@given(st.lists(ANY, min_size=1, max_size=200), st.integers(8, 60))
def test_no_numbers_break_a_drawing_or_its_width(values, width):
    assert len(charts.profile(values, width)) == min(width, len(values))
    assert len(charts.sparkline(values, width)) == min(width, len(values))
    assert all(len(row) <= width + 8 for row in charts.curve(values, width=width))
    for value in values:
        assert len(charts.gauge(value, low=1e-6, high=1e2, band=(1e-3, 0.1), width=13)) == 13
        assert number(value)


def test_buckets_keep_the_geometric_mean_and_any_fault():
    assert charts.buckets([1.0, 1e-2, 1e-4, 1e-6], 2) == pytest.approx([1e-1, 1e-5])
    assert math.isnan(charts.buckets([1.0, math.nan, 1.0, 1.0], 2)[0])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0.034567, "0.035"),
        (12345, "12,345"),
        (1234.5, "1200"),
        (127.4, "130"),
        (3.14159e-9, "3.1e-09"),
        (math.nan, "NaN"),
        (-math.inf, "-inf"),
        (0.0, "0"),
        ("Adam", "Adam"),
        (True, "True"),
    ],
)
def test_numbers_have_two_significant_digits(value, word):
    assert number(value) == word


def test_counting_is_grammatical():
    assert (count(1, "error"), count(2, "error"), count(1200, "step")) == (
        "1 error",
        "2 errors",
        "1,200 steps",
    )


def rows_of(shares: dict[str, float]) -> list[list[str]]:
    table = decade_bars(shares, 8)
    return [[str(cell) for cell in column.cells] for column in table.columns]


def test_decades_are_ordered_by_size_and_the_blameless_come_last():
    kinds, bars, sizes = rows_of({"structural": -9.0, "weights": -2.0, "Sigmoid": -4.0})

    assert kinds == ["Sigmoid", "weights", "structural"]
    assert [len(bar) for bar in bars] == [4, 2, 8]
    assert sizes == ["−4.0", "−2.0", "−9.0  not blamed"]


def test_decades_of_both_signs_go_both_ways_from_one_axis():
    _, bars, sizes = rows_of({"weights": 8.0, "Tanh": -4.0})

    assert bars == ["    │████", "  ██│"]
    assert sizes == ["+8.0", "−4.0"]


def test_long_paths_lose_their_middle():
    assert elide("encoder.layers.11.attention.query", 16) == "encod…tion.query"
    assert elide("short", 16) == "short"
