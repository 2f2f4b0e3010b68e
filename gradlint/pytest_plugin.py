"""The pytest plugin: a fixture, a marker, a section of the summary. Loads no torch by itself."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradlint.pytest_fixture import Gradlint
    from gradlint.report import Report

OPTIONS = ("fail_on", "ignore", "select", "steps", "seed", "seeds")
"""What the marker sets, and what `check` and `watch` of the fixture take beside their own."""

_MARKER = (
    'gradlint(fail_on="error", ignore=(), select=None, steps=40, seed=0, seeds=3): '
    "options of the `gradlint` fixture; a call's own arguments win"
)
_RECORDS = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture
def gradlint(request: pytest.FixtureRequest) -> Iterator[Gradlint]:
    """`gradlint.check(model, batch, loss_fn)` and `gradlint.watch(model, optimizer)`.

    Settings are those of the project, `@pytest.mark.gradlint(...)` over them, and a call's
    own arguments over both.
    """
    from gradlint.config import load_config
    from gradlint.pytest_fixture import Gradlint

    options = _marked(request.node)
    judge = Gradlint(load_config(request.config.rootpath), options)
    yield judge
    judge.finish()


def _marked(node: Any) -> dict[str, Any]:
    """Return the options of a test's markers, the closest one's over the others'.

    Raises:
        pytest.UsageError: If a marker has an option that there is none of.
    """
    found: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("gradlint"))):
        if marker.args:
            raise pytest.UsageError(
                f"@pytest.mark.gradlint: expected keywords such as fail_on=, got {marker.args[0]!r}"
            )
        for key, value in marker.kwargs.items():
            if key not in OPTIONS:
                close = difflib.get_close_matches(key, OPTIONS, n=1)
                meant = f"did you mean {close[0]!r}?" if close else "choose from "
                known = "" if close else ", ".join(OPTIONS)
                raise pytest.UsageError(f"@pytest.mark.gradlint: no option {key!r}; {meant}{known}")
            several = key in ("ignore", "select") and isinstance(value, str)
            found[key] = (value,) if several else value
    return found


# -- what pytest asks ---------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and take part in the summary."""
    config.addinivalue_line("markers", _MARKER)
    config.pluginmanager.register(Summary(config), "gradlint-summary")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what was judged into the test's report, which travels from workers, and its properties.

    Plain lists and strings only: reports cross processes and are written as XML.
    """
    if call.when == "setup":  # a test that is run again starts anew
        item.stash[_RECORDS] = []
        item.user_properties[:] = [p for p in item.user_properties if p[0] != "gradlint"]
    records = item.stash.setdefault(_RECORDS, [])
    testing = sys.modules.get("gradlint.testing")
    for judged in testing.take_judged() if testing is not None else ():
        record = _record(judged)
        records.append(record)
        item.user_properties += [("gradlint", text) for text in record["findings"]]
    made = yield
    if records and call.when == "teardown":
        vars(made)["gradlint"] = list(records)
    return made


def _record(report: Report) -> dict[str, Any]:
    model = report.target.object or "model"
    return {
        "model": model,
        "verdict": report.verdict,
        "findings": [
            f"{found.code} {found.rule} {model}{f'.{found.module}' if found.module else ''}: "
            f"{' '.join(found.message.split())}"
            for found in report.findings
        ],
    }


class Summary:
    """The section of the terminal summary; nothing if nothing was found."""

    def __init__(self, config: pytest.Config) -> None:
        self._verbose = config.get_verbosity() > 0
        self._judged: dict[str, list[dict[str, Any]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test judged, here or in a worker."""
        records = getattr(report, "gradlint", None)
        if records:
            self._judged[report.nodeid] = records

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write a line for each model with findings; what is only noted, if asked for more."""
        lines = [
            (record["verdict"], f"{nodeid}: {_line(record)}")
            for nodeid, records in sorted(self._judged.items())
            for record in records
            if record["findings"] and (self._verbose or record["verdict"] != "healthy")
        ]
        if not lines:
            return
        terminalreporter.section("gradlint")
        colors = {"unhealthy": "red", "suspicious": "yellow"}
        for verdict, line in lines:
            markup = {colors[verdict]: True} if verdict in colors else {}
            terminalreporter.write_line(line, **markup)


def _line(record: Mapping[str, Any]) -> str:
    first, *others = record["findings"]
    more = f" (and {len(others)} more)" if others else ""
    return f"{record['verdict']}: {first}{more}"
