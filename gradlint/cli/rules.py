"""`gradlint rules`: the catalogue."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from gradlint.cli.failures import choose
from gradlint.cli.outputs import drawable


def rules(
    select: Annotated[
        str | None,
        typer.Argument(metavar="[RULE]", help="Only these: the beginning of a code, or a name."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="NAME", help="full, markdown or json.")
    ] = "full",
) -> None:
    """List the rules: code, name, usual severity, what each flags."""
    from gradlint.explain import catalogue, option_defaults, summary
    from gradlint.rules import all_rules

    choose("--format", form, ("full", "markdown", "json"))
    chosen = all_rules()
    if select is not None:
        from gradlint.selection import resolve

        codes = resolve(select)
        chosen = tuple(rule for rule in chosen if rule.code in codes)
    if form == "markdown":
        text = catalogue(chosen)
    elif form == "json":
        entries = [
            {
                "code": rule.code,
                "name": rule.name,
                "severity": rule.severity.label,
                "summary": summary(rule),
                "options": option_defaults(rule),
                "help": rule.help,
            }
            for rule in chosen
        ]
        text = json.dumps(entries, indent=2) + "\n"
    else:
        wide = max(len(rule.name) for rule in chosen)
        text = "".join(
            f"{rule.code}  {rule.name:<{wide}}  {rule.severity.label:<7}  {summary(rule)}\n"
            for rule in chosen
        )
    sys.stdout.write(drawable(text, sys.stdout))
