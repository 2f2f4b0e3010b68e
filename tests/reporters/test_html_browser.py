"""The HTML report in Chromium without a window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gradlint.reporters import render
from gradlint.reporters.sample import sick_report
from tests.reporters.browser import CHROMIUM, Browser
from tests.reporters.pages import long_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as found:
        yield found


@pytest.fixture
def sick_page(tmp_path: Path) -> Path:
    file = tmp_path / "sick.html"
    file.write_text(render([sick_report(), long_run(200, 500)], "html"), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_without_a_word_of_complaint_and_without_network(
    browser: Browser, sick_page: Path, width: int, dark: bool
) -> None:
    browser.open(sick_page, width=width, dark=dark)

    assert browser.ask("document.querySelectorAll('main').length") == 2
    assert browser.complaints == []
    assert [r for r in browser.requests if not r.startswith(("file:", "data:"))] == []
    color = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert color == ("rgb(19, 21, 24)" if dark else "rgb(252, 252, 251)")
    wide = browser.ask("document.documentElement.scrollWidth")
    assert wide <= width  # nothing sticks out sideways


def test_a_page_that_does_complain_is_noticed(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<script>console.error('a'); nothing()</script><img src='b.png'>")
    browser.open(file)

    assert len(browser.complaints) >= 2
    assert any(request.endswith("b.png") for request in browser.requests)


def test_charts_are_drawn(browser: Browser, sick_page: Path) -> None:
    browser.open(sick_page)

    small = browser.ask(
        "[...document.querySelectorAll('svg')].filter(s => s.checkVisibility() &&"
        " (s.getBoundingClientRect().height < 40 ||"
        "  !s.querySelector('polyline, rect, path'))).length"
    )
    assert small == 0
    lines = browser.ask("[...document.querySelectorAll('polyline')].map(l => l.getTotalLength())")
    assert len(lines) > 8
    assert min(lines) > 50


def test_search_and_the_check_box_filter_the_table(browser: Browser, sick_page: Path) -> None:
    browser.open(sick_page)
    shown = "document.querySelectorAll('#r1-rows tr:not([hidden])').length"
    form = "document.querySelector('#r1 form')"
    assert browser.ask(shown) == 12

    browser.ask(f"{form}.elements.words.focus()")
    browser.call("Input.insertText", text="layers.2")
    assert browser.ask(shown) == 3  # and 20, 22
    assert browser.ask(f"{form}.querySelector('output').textContent") == "3 of 12 layers"

    browser.ask(f"{form}.elements.words.value = ''; {form}.elements.marked.click()")
    assert browser.ask(shown) == browser.ask(
        "document.querySelectorAll('#r1-rows tr.marked').length"
    )
    assert browser.ask("document.querySelectorAll('#r2-rows tr:not([hidden])').length") == 200


def test_a_column_sorts_by_number_both_ways_from_the_keyboard(
    browser: Browser, sick_page: Path
) -> None:
    browser.open(sick_page)
    head = "[...document.querySelectorAll('#r2 thead th')]"
    column = browser.ask(f"{head}.findIndex(h => h.textContent.includes('gradient / weight'))")
    cells = f"[...document.querySelectorAll('#r2-rows tr')].map(r => +r.cells[{column}].dataset.v)"
    browser.ask(f"{head}[{column}].querySelector('button').focus()")

    browser.press("Enter")
    assert browser.ask(f"{head}[{column}].getAttribute('aria-sort')") == "ascending"
    values = browser.ask(cells)
    assert values == sorted(values)

    browser.press("Enter")
    assert browser.ask(f"{head}[{column}].getAttribute('aria-sort')") == "descending"
    assert browser.ask(cells) == sorted(values, reverse=True)


def test_everything_is_reached_with_the_tab_key(browser: Browser, sick_page: Path) -> None:
    browser.open(sick_page)
    seen = set()
    for _ in range(60):
        browser.press("Tab")
        seen.add(browser.ask("document.activeElement.tagName"))

    assert {"A", "SUMMARY", "INPUT", "BUTTON", "DIV"} <= seen


def test_names_of_the_user_do_not_run(browser: Browser, tmp_path: Path) -> None:
    name = "<script>document.title='run'</script>"
    file = tmp_path / "evil.html"
    report = long_run(6, 20, name=lambda i: f"{name}.{i}")
    file.write_text(render([report], "html"), encoding="utf-8")
    browser.open(file)

    assert browser.ask("document.title").startswith("gradlint")
    assert browser.ask("document.scripts.length") == 1
    assert name in browser.ask("document.querySelector('tbody th[scope=row]').textContent")
