"""The parts of the HTML report: scales, shades, names, explanations, colors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradlint.explain import page
from gradlint.reporters.html import maps, prose
from gradlint.reporters.html.profiles import envelope
from gradlint.reporters.html.svg import Panel, Scale, short_names, signed
from gradlint.rules import all_rules
from tests.reporters.reading import Page

STYLE = Path(prose.__file__).with_name("style.css").read_text(encoding="utf-8")


def test_a_logarithmic_scale_spans_whole_decades_and_has_few_ticks():
    scale = Scale.over([3e-9, 2.0], log=True)

    assert (scale.low, scale.high) == (-9, 1)
    assert scale.y(10) < scale.y(1) < scale.y(1e-9) == scale.y(0) == scale.bottom
    assert 3 <= len(scale.ticks()) <= 6
    assert len(Scale.over([1.0], log=True).ticks()) == 3


def test_a_zero_lies_below_all_that_is_not_and_outside_the_band():
    scale = Scale.over([0.0, 1e-3, 1e-1], log=True)
    panel = Panel(scale)
    panel.band(1e-3, 1e-1, "healthy")

    assert scale.ticks()[0] == (0.0, "0")
    assert scale.y(0) == scale.bottom > scale.y(1e-3) + 20
    top, height = (
        float(re.search(rf' {n}="([\d.]+)"', panel.parts[0])[1]) for n in ("y", "height")
    )
    assert top + height == pytest.approx(scale.y(1e-3), abs=0.2)


def test_what_is_level_does_not_look_steep():
    assert Scale.over([0.5, 0.6], log=True).high - Scale.over([0.5, 0.6], log=True).low >= 2


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [], [float("nan")], [-3.0, 5.0], [1e-300]])
def test_a_linear_scale_holds_its_values_and_has_ticks(values: list[float]) -> None:
    scale = Scale.over(values, log=False)

    assert scale.low < scale.high
    assert 2 <= len(scale.ticks()) <= 8
    finite = [v for v in values if v == v]
    assert all(scale.low <= v <= scale.high for v in finite)


def test_an_envelope_keeps_peaks_and_faults():
    points = [(float(i), 1.0) for i in range(10_000)]
    points[4321] = (4321.0, 99.0)
    points[7000] = (7000.0, float("nan"))

    kept = envelope(points, 100)
    assert len(kept) <= 201
    assert (4321.0, 99.0) in kept
    assert any(y != y for _, y in kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


@pytest.mark.parametrize(
    ("value", "class_"),
    [(0.01, "h0"), (5e-4, "h-1"), (5e-6, "h-3"), (0.0, "h-5"), (1e-30, "h-5"), (0.5, "h1"),
     (1e9, "h5"), (float("nan"), "fault"), (float("inf"), "fault")],
)  # fmt: skip
def test_shades_tell_how_far_from_the_band(value: float, class_: str) -> None:
    assert maps.shade(value, (1e-3, 1e-1), 1.0) == class_


def test_short_names_lose_what_all_have_in_common():
    assert short_names(["a.b.c", "a.b.d"]) == {"a.b.c": "c", "a.b.d": "d"}
    assert short_names(["a", "a.b"]) == {"a": "a", "a.b": "a.b"}
    assert short_names([""]) == {"": "model"}


def test_decades_have_a_sign_unless_they_are_nothing():
    assert [signed(v) for v in (-6.12, 0.04, -0.04, 2.0)] == ["−6.1", "0", "0", "+2.0"]


def test_pages_of_all_rules_become_html_without_marks_left_over():
    for rule in all_rules():
        found = Page(str(prose.html(page(rule))))
        outside = found.text("p", "li", "h4", "td", "th", "strong")
        assert "**" not in outside, rule.code
        assert "##" not in outside, rule.code
        assert "```" not in outside, rule.code


def test_markdown_is_escaped():
    assert prose.html("a <b> `<i>`") == "<p>a &lt;b&gt; <code>&lt;i&gt;</code></p>"
    assert "<script" not in prose.html("```\n<script>\n```\n- <script>\n\n| <script> |\n|---|\n")


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _themes() -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


@pytest.mark.parametrize("theme", list(_themes()), ids=["light", "dark"])
def test_text_can_be_read_by_contrast(theme: dict[str, str]) -> None:
    pairs = [(ink, on) for ink in ("ink", "dim", "link") for on in ("page", "card", "soft")]
    pairs += [(name, f"{name}-soft") for name in ("error", "warning", "note", "ok")]
    pairs += [(name, on) for name in ("error", "warning", "note", "ok") for on in ("page", "card")]
    pairs += [("ink", f"{name}-soft") for name in ("error", "ok")]
    pairs += [("dim", "ok-soft")]
    assert {p: c for p in pairs if (c := contrast(theme[p[0]], theme[p[1]])) < 4.5} == {}
    lines = [(line, on) for line in ("a", "b", "limit") for on in ("page", "band")]
    assert {p: c for p in lines if (c := contrast(theme[p[0]], theme[p[1]])) < 2.5} == {}
