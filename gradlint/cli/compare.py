"""`gradlint compare`: what got worse from one run to another, what got better."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradlint.cli.failures import choose
from gradlint.cli.options import (
    FAIL_ON,
    OUT,
    RULES,
    Color,
    ConfigFile,
    ExtendSelect,
    FailOn,
    Ignore,
    Isolated,
    Select,
    Verbose,
    Words,
    option,
)
from gradlint.cli.outputs import COLORS, drawable, options_for
from gradlint.cli.saved import judged_file
from gradlint.cli.settings import Overrides, split_words
from gradlint.errors import UsageError

if TYPE_CHECKING:
    from gradlint.compare import Comparison
    from gradlint.reporters import Options

FORMATS = ("full", "json")


def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A trace or a JSON report.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one, compared with it.")],
    form: Annotated[
        Words, option("-f", "--format", metavar="NAME[:FILE]", group=OUT, text="full or json.")
    ] = None,
    quiet: Annotated[
        bool, option("-q", "--quiet", metavar=None, group=OUT, text="Worse and better alone.")
    ] = False,
    verbose: Verbose = False,
    color: Color = "auto",
    select: Select = None,
    ignore: Ignore = None,
    extend_select: ExtendSelect = None,
    fail_on: FailOn = None,
    exit_zero: Annotated[
        bool, option("--exit-zero", metavar=None, group=RULES, text="Exit 0 if worse, too.")
    ] = False,
    config_file: ConfigFile = None,
    isolated: Isolated = False,
) -> int:
    """Compare two saved runs: findings by rule and module, numbers by their spread.

    The exit code is 1 if something got worse at or above --fail-on: a new finding, one that
    is graver, or a number that is worse by more than three times its spread (a warning).
    """
    outputs = parse_places(form or ("full",))
    choose("--color", color, COLORS)
    if fail_on is not None:
        choose("--fail-on", fail_on, FAIL_ON)
    overrides = Overrides(
        file=config_file,
        isolated=isolated,
        select=None if select is None else split_words(select),
        ignore=split_words(ignore),
        extend_select=split_words(extend_select),
        fail_on="never" if exit_zero else fail_on,
        notes=not quiet,
    )
    from gradlint.compare import compare as compared

    (base_report, base_trace), (new_report, new_trace) = (
        judged_file(file, overrides) for file in (base, new)
    )
    found = compared(
        base_report,
        new_report,
        base_trace=base_trace,
        new_trace=new_trace,
        fail_on="never" if exit_zero else fail_on or _settled(new_report.fail_on),
    )
    options = options_for(sys.stdout, color, verbose=verbose, quiet=quiet)
    for name, file in outputs:
        _write(found, name, file, options)
    return found.exit_code


def _settled(fail_on: str) -> str:
    """What the settings said when the report was made, if they said what can be."""
    return fail_on if fail_on in FAIL_ON else "error"


def parse_places(words: Sequence[str]) -> list[tuple[str, Path | None]]:
    """Return the formats that `words` name, each with its file; None is stdout.

    Raises:
        UsageError: If a format is unknown, or two want stdout.
    """
    places: list[tuple[str, Path | None]] = []
    for word in words:
        name, _, file = word.partition(":")
        choose("--format", name, FORMATS)
        places.append((name, Path(file) if file and file != "-" else None))
    if sum(file is None for _, file in places) > 1:
        raise UsageError("--format: only one format can go to stdout; give the other a file")
    return places


def _write(found: Comparison, name: str, file: Path | None, options: Options) -> None:
    from gradlint.reporters import Options as Plain
    from gradlint.reporters.comparison import render

    if file is not None:
        options = Plain(verbose=options.verbose, quiet=options.quiet)
    text = found.to_json() + "\n" if name == "json" else render(found, options)
    try:
        if file is not None:
            file.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(drawable(text, sys.stdout))
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        place = "stdout" if file is None else repr(str(file))
        raise UsageError(f"cannot write the comparison to {place}: {error.strerror}") from error
