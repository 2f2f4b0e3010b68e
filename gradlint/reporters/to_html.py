"""HTML: one page that needs no network; verdict and causes first, then charts and a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from gradlint.report import Report
from gradlint.reporters.base import Options
from gradlint.reporters.html.view import view
from gradlint.reporters.places import clean

if TYPE_CHECKING:
    from jinja2 import Environment


def render(report: Report, options: Options) -> str:
    """Return `report` as a page."""
    return render_all([report], options)


def render_all(reports: Sequence[Report], _: Options) -> str:
    """Return `reports` as one page, with a list of them where there are several."""
    views = [view(report, index) for index, report in enumerate(reports, start=1)]
    verdicts = Counter(report.verdict for report in reports)
    title = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    if len(reports) == 1:
        title = f"{reports[0].verdict}: {views[0]['name']}"
    page = _environment().get_template("page.html")
    return clean(page.render(views=views, title=title)).rstrip() + "\n"


def framed(report: Report, height: int = 640) -> str:
    """Return `report` as a frame for a notebook: its style and its names stay inside."""
    frame = '<iframe srcdoc="{}" title="gradlint" style="width:100%;height:{}px;border:0"></iframe>'
    return str(Markup(frame).format(render(report, Options()), height))  # noqa: S704


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gradlint.reporters", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.globals["own"] = _own
    return environment


def _breakable(path: str) -> Markup:
    """Return a module's path that may go on in another line behind its dots."""
    return Markup(".<wbr>").join(path.split("."))


def _own(name: str) -> Markup:
    """Return a file of the template folder as it is: the style or the script of the page."""
    text = Path(__file__).with_name("html").joinpath(name).read_text(encoding="utf-8")
    return Markup(text.strip())  # noqa: S704
