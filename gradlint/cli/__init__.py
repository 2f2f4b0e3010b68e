"""The command line: one command a file. No torch before a target is looked at."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gradlint._version import __version__
from gradlint.cli import check, compare, explain, report, rules, run
from gradlint.cli.failures import INTERRUPTED, exit_code_for, say
from gradlint.cli.outputs import give_up_stdout

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Turns every exception into one sentence on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                args,
                prog_name="gradlint" if prog_name is None else prog_name,
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except (Exception, KeyboardInterrupt) as error:
            if not standalone_mode:
                raise
            code = exit_code_for(error, verbose=bool({"-v", "--verbose"} & set(given)))
        else:
            if code == INTERRUPTED:  # typer has made an exit of the KeyboardInterrupt
                say("interrupted")
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            sys.exit(code)
        return code


app = typer.Typer(
    cls=_Group,
    name="gradlint",
    help="Tells you what is wrong with the gradients of a PyTorch model: where, why, what to do.",
    epilog="Exit codes: 0 clean, 1 findings, 2 usage, 3 target failed, 70 gradlint's own fault.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("check")(check.check)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("rules")(rules.rules)
app.command("explain")(explain.explain)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gradlint {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _gradlint(
    context: typer.Context,
    _: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_show_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; ends the process with the exit code."""
    try:
        app()
    finally:
        if sys.argv[1:2] != ["run"]:  # there, stdout is the script's to its end
            give_up_stdout()
