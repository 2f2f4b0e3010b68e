"""Pages made of the rules' own docstrings; `python -m gradlint.explain --readme` makes a table."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gradlint.errors import UsageError
from gradlint.rules import Rule, all_rules

_TABLE = re.compile(r"(<!-- rules -->\n).*?(<!-- /?rules -->)", re.DOTALL)
_REFERENCES = "## References"


def page(rule: type[Rule]) -> str:
    """Return the page of `rule`, in Markdown: its docstring, its options, how to configure it."""
    text = inspect.cleandoc(rule.__doc__ or "")
    summary, _, body = text.partition("\n\n")
    head, mark, references = body.partition(_REFERENCES)
    exact = ", an exact fact" if rule.exact else ""
    parts = [
        f"# {rule.code} {rule.name}",
        f"{summary}\n\nUsual severity: **{rule.severity.label}**{exact}.",
        head.strip(),
        options_table(rule),
        f"## What to do\n{rule.help}" if rule.help else "",
        (mark + references).strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def options_table(rule: type[Rule]) -> str:
    """Return the options of `rule` as a Markdown section; empty if it has none."""
    options = option_defaults(rule)
    if not options:
        return ""
    rows = "\n".join(f"| `{name}` | `{value}` |" for name, value in options.items())
    return (
        f"## Options\n| option | default |\n|---|---|\n{rows}\n\n"
        f"Set them under `[tool.gradlint.rules.{rule.name}]` in `pyproject.toml`."
    )


def option_defaults(rule: type[Rule]) -> dict[str, Any]:
    """Return the options of `rule` and their defaults."""
    defaults = rule()
    return {option.name: getattr(defaults, option.name) for option in fields(rule)}


def summary(rule: type[Rule]) -> str:
    """Return the first line of the rule's docstring."""
    return inspect.cleandoc(rule.__doc__ or "").partition("\n")[0]


def catalogue(rules: Sequence[type[Rule]] | None = None) -> str:
    """Return `rules`, by default all, as a Markdown table."""
    rows = "\n".join(
        f"| {rule.code} | `{rule.name}` | {rule.severity.label} | {summary(rule)} |"
        for rule in (all_rules() if rules is None else rules)
    )
    return f"| code | name | severity | flags |\n|---|---|---|---|\n{rows}\n"


def with_catalogue(text: str) -> str:
    """Return `text` with the table between its two ``<!-- rules -->`` marks made anew.

    Raises:
        UsageError: If the marks are not there.
    """
    if not _TABLE.search(text):
        raise UsageError("expected two lines '<!-- rules -->' around the rule table, found none")
    return _TABLE.sub(lambda match: match[1] + catalogue() + match[2], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the rule table into a README; with ``--check``, only say whether it is current."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m gradlint.explain", description=main.__doc__)
    parser.add_argument("--readme", nargs="?", const="README.md", required=True, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if not current")
    chosen = parser.parse_args(arguments)
    path = Path(chosen.readme)
    try:
        before = path.read_text(encoding="utf-8")
        after = with_catalogue(before)
    except (OSError, UsageError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 2
    if before != after and chosen.check:
        sys.stderr.write(f"{path}: rule table is not current; run this without --check\n")
        return 1
    if before != after:
        path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
