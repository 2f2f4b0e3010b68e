"""`gradlint report`: a saved trace judged again, a saved report shown in another format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradlint.cli.baselines import BaselineOptions, hold_against
from gradlint.cli.failures import choose
from gradlint.cli.jobs import Look, say_notices
from gradlint.cli.options import (
    FAIL_ON,
    RULES,
    Baseline,
    Color,
    ConfigFile,
    ExitZero,
    ExtendSelect,
    FailOn,
    Form,
    Ignore,
    Isolated,
    PruneBaseline,
    Quiet,
    Select,
    ShowSettings,
    UpdateBaseline,
    Verbose,
    option,
)
from gradlint.cli.outputs import COLORS, options_for, parse_outputs, write
from gradlint.cli.saved import judge_file
from gradlint.cli.settings import Overrides, print_settings, settings_for, split_words
from gradlint.errors import UsageError
from gradlint.reporters import ALWAYS_WRITTEN


def report(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="A trace (run --trace FILE), or a JSON report."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        option(
            "--against",
            metavar="BASE",
            group=RULES,
            text="A trace of a good run to be no worse than; several tell the usual spread.",
        ),
    ] = None,
    form: Form = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    color: Color = "auto",
    select: Select = None,
    ignore: Ignore = None,
    extend_select: ExtendSelect = None,
    fail_on: FailOn = None,
    exit_zero: ExitZero = False,
    baseline: Baseline = None,
    update_baseline: UpdateBaseline = False,
    prune_baseline: PruneBaseline = False,
    config_file: ConfigFile = None,
    isolated: Isolated = False,
    show_settings: ShowSettings = False,
) -> int:
    """Judge a saved trace again, or show a saved JSON report, in any format.

    Rules, thresholds and settings are those of now, not those of the recording. Nothing is
    trained, and torch is not needed.
    """
    outputs = parse_outputs(form or ())
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
    if show_settings:
        return print_settings(files or (), overrides)
    if not files:
        raise UsageError("expected a FILE: gradlint report run.jsonl")
    look = Look(outputs, color=color, quiet=quiet, verbose=verbose)
    accepting = BaselineOptions(baseline, update_baseline, prune_baseline)
    place = Overrides(file=config_file, isolated=isolated, notes=False)
    accepted = accepting.file_for(*settings_for(None, place))
    judged = [
        each
        for file in files
        for each in judge_file(file, overrides, look, tuple(against or ()), alone=len(files) == 1)
    ]
    reports = [each.report for each in judged]
    if accepted is not None:
        reports = list(hold_against(reports, accepted, accepting))
    say_notices(reports, look)
    shown = [r for r, each in zip(reports, judged, strict=True) if each.read]
    options = options_for(sys.stdout, color, verbose=verbose, quiet=quiet)
    for output in outputs:
        chosen = reports if output.name in ALWAYS_WRITTEN else shown
        if chosen:
            write(chosen, output, options, sys.stdout)
    return max((each.exit_code for each in reports), default=0)
