"""`gradlint run`: an unmodified script, watched while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gradlint.cli.baselines import BaselineOptions
from gradlint.cli.failures import choose
from gradlint.cli.jobs import Look
from gradlint.cli.options import (
    FAIL_ON,
    OUT,
    RUN,
    Baseline,
    Color,
    ConfigFile,
    ExitZero,
    ExtendSelect,
    FailOn,
    Ignore,
    Isolated,
    PruneBaseline,
    Quiet,
    Select,
    ShowSettings,
    UpdateBaseline,
    Verbose,
    Words,
    option,
)
from gradlint.cli.outputs import COLORS, Output, parse_outputs
from gradlint.cli.settings import Overrides, print_settings, settings_for, split_words
from gradlint.cli.watched import Watching, run_watched
from gradlint.entry import find_entry
from gradlint.errors import UsageError

STOP_ON = ("error", "warning", "never")
FOR_PEOPLE = ("full", "concise")


def run(
    script: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCRIPT [ARGS]", help="As after `python`; all that follows is the script's."
        ),
    ] = None,
    module: Annotated[
        bool, option("-m", "--module", metavar=None, group=RUN, text="SCRIPT is a module's name.")
    ] = False,
    until: Annotated[
        int | None,
        option("--until", metavar="N", group=RUN, text="Stop after N optimizer steps.", min=1),
    ] = None,
    stop_on: Annotated[
        str,
        option("--stop-on", metavar="LEVEL", group=RUN, text="Stop at an error or a warning."),
    ] = "never",
    trace: Annotated[
        Path | None, option("--trace", metavar="FILE", group=RUN, text="Save what was measured.")
    ] = None,
    every: Annotated[
        int | None,
        option("--every", metavar="N", group=RUN, text="Look at every Nth step.", min=1),
    ] = None,
    budget: Annotated[
        str, option("--budget", metavar="SHARE", group=RUN, text="Of the run's time, at most.")
    ] = "2%",
    live: Annotated[
        bool, option("--live", metavar=None, group=OUT, text="Show the run on the terminal.")
    ] = False,
    form: Annotated[
        Words,
        option("-f", "--format", metavar="NAME[:FILE]", group=OUT, text="full, json:FILE …"),
    ] = None,
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
    """Watch a training script: run it as `python SCRIPT ARGS` would, then judge.

    The script is not changed, and its output is its own: the report goes to stderr.
    Options of gradlint stand before SCRIPT.
    """
    outputs = outputs_on_stderr(form or ())
    choose("--color", color, COLORS)
    choose("--stop-on", stop_on, STOP_ON)
    if fail_on is not None:
        choose("--fail-on", fail_on, FAIL_ON)
    if trace is not None and (trace.is_dir() or not trace.parent.is_dir()):
        raise UsageError(f"--trace: cannot write to {str(trace)!r}: no such folder, or a folder")
    share = share_of_time(budget)
    overrides = Overrides(
        file=config_file,
        isolated=isolated,
        select=None if select is None else split_words(select),
        ignore=split_words(ignore),
        extend_select=split_words(extend_select),
        fail_on="never" if exit_zero else fail_on,
        notes=not quiet,
    )
    name, *arguments = script or [""]
    beside = None if module or not name else name
    if show_settings:
        return print_settings([beside] if beside else (), overrides)
    if not name:
        raise UsageError("expected a SCRIPT: gradlint run train.py, or gradlint run -m package")
    entry = find_entry(name, tuple(arguments), module=module)
    config, settings = settings_for(beside, overrides)
    accepting = BaselineOptions(baseline, update_baseline, prune_baseline)
    accepted = accepting.file_for(config, settings)
    watching = Watching(
        config=config,
        every="auto" if every is None else every,
        budget=share,
        stop_on=None if stop_on == "never" else stop_on,
        until=until,
        trace=trace,
        live=live and not quiet,
        accepted=None if accepted is None else accepted.resolve(),
        accepting=accepting,
    )
    look = Look(outputs, color=color, quiet=quiet, verbose=verbose)
    return run_watched(entry, watching, look)


def outputs_on_stderr(words: Sequence[str]) -> tuple[Output, ...]:
    """Return what `words` stand for; the one without a file goes to stderr.

    Raises:
        UsageError: If a format is unknown, has no file where it needs one, or two want stderr.
    """
    parts = [word.partition(":") for word in words]
    bare = [name for name, colon, file in parts if not colon or file == "-"]
    for name in bare:
        parse_outputs([name])
        if name not in FOR_PEOPLE:
            raise UsageError(
                f"--format: under `run` stdout is the script's; give {name} a file: -f {name}:FILE"
            )
    if len(bare) > 1:
        raise UsageError(
            "--format: only one format can go to stderr; give the others a file: "
            f"-f {bare[-1]}:FILE"
        )
    return parse_outputs(words)


def share_of_time(text: str) -> float:
    """Return the share that ``2%`` or ``0.02`` stands for.

    Raises:
        UsageError: If it is none above 0 and up to 1.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise UsageError(f"--budget: expected a share of the time such as 2%, got {text!r}")
    return share
