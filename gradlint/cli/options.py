"""Options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

FAIL_ON = ("error", "warning", "note", "never")
RUN, PARTS, RULES, OUT = "Run", "Target", "Rules", "Output"
"""Panels of the help, in the order of the need for them."""

Words = list[str] | None


def option(*names: str, metavar: str | None, text: str, group: str, **limits: Any) -> Any:
    """Return an option of a command; `metavar` is None for a flag."""
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=group, **limits)


Form = Annotated[
    Words,
    option("-f", "--format", metavar="NAME[:FILE]", group=OUT, text="full, concise, json …"),
]
Quiet = Annotated[
    bool, option("-q", "--quiet", metavar=None, group=OUT, text="Findings only, no notes.")
]
Verbose = Annotated[
    bool, option("-v", "--verbose", metavar=None, group=OUT, text="Leave nothing out.")
]
Color = Annotated[str, option("--color", metavar="WHEN", group=OUT, text="auto, always or never.")]
Select = Annotated[
    Words, option("--select", metavar="RULES", group=RULES, text="Only these: GL3,dead-units.")
]
Ignore = Annotated[Words, option("--ignore", metavar="RULES", group=RULES, text="Not these.")]
ExtendSelect = Annotated[
    Words, option("--extend-select", metavar="RULES", group=RULES, text="These as well.")
]
FailOn = Annotated[
    str | None,
    option("--fail-on", metavar="LEVEL", group=RULES, text="error, warning, note or never."),
]
ExitZero = Annotated[
    bool, option("--exit-zero", metavar=None, group=RULES, text="Exit 0 with findings, too.")
]
Baseline = Annotated[
    Path | None,
    option("--baseline", metavar="FILE", group=RULES, text="Findings accepted before."),
]
UpdateBaseline = Annotated[
    bool,
    option("--update-baseline", metavar=None, group=RULES, text="Accept what is there now."),
]
PruneBaseline = Annotated[
    bool, option("--prune-baseline", metavar=None, group=RULES, text="Drop what is gone.")
]
ConfigFile = Annotated[
    Path | None, option("--config", metavar="FILE", group=RULES, text="Settings from FILE.")
]
Isolated = Annotated[
    bool, option("--isolated", metavar=None, group=RULES, text="Read no settings from files.")
]
ShowSettings = Annotated[
    bool, option("--show-settings", metavar=None, group=RULES, text="Print them, and stop.")
]
