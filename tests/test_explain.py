"""Rule pages: made of docstrings, complete, and current in the README."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from gradlint import explain
from gradlint.errors import UsageError
from gradlint.finding import Finding, Severity
from gradlint.rules import all_rules
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class DeadUnits(Rule):
    """Units that never fire.

    ## What it does
    Flags them beyond `max_fraction`.

    ## References
    - Maas et al. (2013)
    """

    code: ClassVar = "GL201"
    name: ClassVar = "dead-units"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = "Lower the learning rate."

    max_fraction: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        yield from ()


def test_a_page_holds_docstring_options_and_help_with_references_last():
    assert explain.page(DeadUnits) == (
        "# GL201 dead-units\n\n"
        "Units that never fire.\n\n"
        "Usual severity: **warning**.\n\n"
        "## What it does\nFlags them beyond `max_fraction`.\n\n"
        "## Options\n| option | default |\n|---|---|\n| `max_fraction` | `0.5` |\n\n"
        "Set them under `[tool.gradlint.rules.dead-units]` in `pyproject.toml`.\n\n"
        "## What to do\nLower the learning rate.\n\n"
        "## References\n- Maas et al. (2013)\n"
    )


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)
def test_every_rule_has_a_page_and_a_row(rule):
    assert explain.page(rule).startswith(f"# {rule.code} {rule.name}\n")
    assert f"| {rule.code} | `{rule.name}` | {rule.severity.label} |" in explain.catalogue()
    assert explain.summary(rule).endswith(".")
    assert "|" not in explain.summary(rule)


@pytest.mark.parametrize("end", ["<!-- rules -->", "<!-- /rules -->"])
def test_the_table_is_written_between_the_marks_and_nowhere_else(end):
    text = f"# A\n<!-- rules -->\nold\n{end}\nafter\n"

    written = explain.with_catalogue(text)

    assert written == f"# A\n<!-- rules -->\n{explain.catalogue()}{end}\nafter\n"
    assert explain.with_catalogue(written) == written


def test_a_text_without_marks_is_refused():
    with pytest.raises(UsageError, match="<!-- rules -->"):
        explain.with_catalogue("# A\n")


def test_check_tells_whether_the_readme_is_current_and_writes_nothing(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- rules -->\nold\n<!-- rules -->\n")
    before = readme.read_text()

    assert explain.main(["--readme", str(readme), "--check"]) == 1
    assert readme.read_text() == before
    assert "not current" in capsys.readouterr().err
    assert explain.main(["--readme", str(readme)]) == 0
    assert explain.main(["--readme", str(readme), "--check"]) == 0


def test_a_readme_that_cannot_be_read_is_named(tmp_path, capsys):
    assert explain.main(["--readme", str(tmp_path / "README.md")]) == 2
    assert "README.md" in capsys.readouterr().err
