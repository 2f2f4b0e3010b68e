"""`gradlint explain`: one rule in full."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gradlint.errors import UsageError


def explain(
    rule: Annotated[
        str | None, typer.Argument(metavar="[RULE]", help="A code or a name: GL301, dead-units.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All rules, one after another.")
    ] = False,
) -> None:
    """Explain a rule: what it flags, why that is bad, an example, when it is wrong."""
    from gradlint.explain import page
    from gradlint.rules import all_rules, find_rule

    if everything == (rule is not None):
        raise UsageError("expected one rule to explain, or --all; 'gradlint rules' lists them")
    if rule is None:
        _show("\n".join(page(each) for each in all_rules()))
        return
    found = find_rule(rule)
    if found is None:
        from gradlint.selection import no_such_rule

        raise UsageError(no_such_rule(rule))
    _show(page(found))


def _show(markdown: str) -> None:
    """Draw `markdown` on a terminal; write it as it is anywhere else."""
    from gradlint.cli.outputs import drawable, options_for

    options = options_for(sys.stdout, "auto", verbose=False, quiet=False)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console(width=options.width, no_color=not options.color).print(Markdown(markdown))
        return
    sys.stdout.write(drawable(markdown, sys.stdout))
