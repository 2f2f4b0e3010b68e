"""`gradlint run`: an unmodified script, watched while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gradlint.cli.baselines import BaselineOptions
from gradlint.cli.check import FAIL_ON, OUT, RULES, RUN, Words, _option
from gradlint.cli.failures import choose
from gradlint.cli.jobs import Look
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
        bool, _option("-m", "--module", metavar=None, group=RUN, text="SCRIPT is a module's name.")
    ] = False,
    until: Annotated[
        int | None,
        _option("--until", metavar="N", group=RUN, text="Stop after N optimizer steps.", min=1),
    ] = None,
    stop_on: Annotated[
        str,
        _option("--stop-on", metavar="LEVEL", group=RUN, text="Stop at an error or a warning."),
    ] = "never",
    trace: Annotated[
        Path | None, _option("--trace", metavar="FILE", group=RUN, text="Save what was measured.")
    ] = None,
    every: Annotated[
        int | None,
        _option("--every", metavar="N", group=RUN, text="Look at every Nth step.", min=1),
    ] = None,
    budget: Annotated[
        str, _option("--budget", metavar="SHARE", group=RUN, text="Of the run's time, at most.")
    ] = "2%",
    live: Annotated[
        bool, _option("--live", metavar=None, group=OUT, text="Show the run on the terminal.")
    ] = False,
    form: Annotated[
        Words,
        _option("-f", "--format", metavar="NAME[:FILE]", group=OUT, text="full, json:FILE …"),
    ] = None,
    quiet: Annotated[
        bool, _option("-q", "--quiet", metavar=None, group=OUT, text="Findings only, no notes.")
    ] = False,
    verbose: Annotated[
        bool, _option("-v", "--verbose", metavar=None, group=OUT, text="Leave nothing out.")
    ] = False,
    color: Annotated[
        str, _option("--color", metavar="WHEN", group=OUT, text="auto, always or never.")
    ] = "auto",
    select: Annotated[
        Words, _option("--select", metavar="RULES", group=RULES, text="Only these: GL3,dead-units.")
    ] = None,
    ignore: Annotated[
        Words, _option("--ignore", metavar="RULES", group=RULES, text="Not these.")
    ] = None,
    extend_select: Annotated[
        Words, _option("--extend-select", metavar="RULES", group=RULES, text="These as well.")
    ] = None,
    fail_on: Annotated[
        str | None,
        _option("--fail-on", metavar="LEVEL", group=RULES, text="error, warning, note or never."),
    ] = None,
    exit_zero: Annotated[
        bool, _option("--exit-zero", metavar=None, group=RULES, text="Exit 0 with findings, too.")
    ] = False,
    baseline: Annotated[
        Path | None,
        _option("--baseline", metavar="FILE", group=RULES, text="Findings accepted before."),
    ] = None,
    update_baseline: Annotated[
        bool,
        _option("--update-baseline", metavar=None, group=RULES, text="Accept what is there now."),
    ] = False,
    prune_baseline: Annotated[
        bool,
        _option("--prune-baseline", metavar=None, group=RULES, text="Drop what is gone."),
    ] = False,
    config_file: Annotated[
        Path | None, _option("--config", metavar="FILE", group=RULES, text="Settings from FILE.")
    ] = None,
    isolated: Annotated[
        bool, _option("--isolated", metavar=None, group=RULES, text="Read no settings from files.")
    ] = False,
    show_settings: Annotated[
        bool, _option("--show-settings", metavar=None, group=RULES, text="Print them, and stop.")
    ] = False,
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
