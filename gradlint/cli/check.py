"""`gradlint check`: a model judged before a GPU hour is spent on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gradlint.cli.baselines import BaselineOptions
from gradlint.cli.failures import choose
from gradlint.cli.jobs import Look, check_all, describe_all, jobs_for
from gradlint.cli.options import (
    FAIL_ON,
    PARTS,
    RUN,
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
    Words,
    option,
)
from gradlint.cli.outputs import COLORS, parse_outputs
from gradlint.cli.settings import Overrides, print_settings, split_words
from gradlint.errors import UsageError
from gradlint.trace_reading import check_place

PRECISIONS = ("fp32", "bf16", "fp16")
DEVICES = ("cpu", "cuda", "cuda:N", "mps", "xpu", "xpu:N")


def check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET", help="path.py, path.py:name or package.module:name."),
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
    inputs: Annotated[
        Words,
        option("--input", metavar="SPEC", group=PARTS, text="32x3x64x64, 8x128:int64:0..1000 …"),
    ] = None,
    loss: Annotated[
        str | None, option("--loss", metavar="NAME", group=PARTS, text="The loss.")
    ] = None,
    optimizer: Annotated[
        str | None, option("--optimizer", metavar="NAME", group=PARTS, text="The optimizer.")
    ] = None,
    lr: Annotated[
        float | None, option("--lr", metavar="RATE", group=PARTS, text="Its learning rate.")
    ] = None,
    batch_size: Annotated[
        int | None,
        option("--batch-size", metavar="N", group=PARTS, text="Samples a batch.", min=1),
    ] = None,
    steps: Annotated[
        int | None,
        option("--steps", metavar="N", group=RUN, text="Training steps; 0: none.", min=0),
    ] = None,
    seed: Annotated[
        int, option("--seed", metavar="N", group=RUN, text="The first seed.", min=0)
    ] = 0,
    seeds: Annotated[
        int | None, option("--seeds", metavar="N", group=RUN, text="Initializations seen.", min=1)
    ] = None,
    device: Annotated[
        str | None, option("--device", metavar="NAME", group=RUN, text="cpu, cuda:0, mps …")
    ] = None,
    precision: Annotated[
        str | None, option("--precision", metavar="NAME", group=RUN, text="fp32, bf16 or fp16.")
    ] = None,
    trace: Annotated[
        Path | None, option("--trace", metavar="FILE", group=RUN, text="Save what was measured.")
    ] = None,
    dry_run: Annotated[
        bool,
        option("--dry-run", metavar=None, group=RUN, text="Say what was found, and stop."),
    ] = False,
) -> int:
    """Judge a model: its initialization, its gradient flow, a short training.

    TARGET is imported, which runs it. What is not found in it is made up, and said so.
    """
    outputs = parse_outputs(form or ())
    choose("--color", color, COLORS)
    if fail_on is not None:
        choose("--fail-on", fail_on, FAIL_ON)
    if precision is not None:
        choose("--precision", precision, PRECISIONS)
    if device is not None:
        _check_device(device)
    if lr is not None and not 0 < lr < float("inf"):
        raise UsageError(f"--lr: expected a number above 0, got {lr}")

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
        return print_settings(targets or (), overrides)
    options = {
        "inputs": tuple(inputs or ()),
        "loss": loss,
        "optimizer": optimizer,
        "lr": lr,
        "batch_size": batch_size,
        "steps": steps,
        "seed": seed,
        "seeds": seeds,
        "device": device,
        "precision": None if precision == "fp32" else precision,
        "trace": trace,
    }
    accepting = BaselineOptions(baseline, update_baseline, prune_baseline)
    if trace is not None:
        if len(targets or ()) > 1:
            raise UsageError("--trace: one file holds one target; check them one by one")
        check_place(trace)
    jobs = jobs_for(targets or (), overrides, options, accepting)
    look = Look(outputs, color=color, quiet=quiet, verbose=verbose)
    return describe_all(jobs, look) if dry_run else check_all(jobs, look, accepting)


def _check_device(device: str) -> None:
    if re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", device) is None:
        choose("--device", device, DEVICES)
        raise UsageError(f"--device: expected a number for N in {device!r}")
