"""`--baseline`, `--update-baseline`, `--prune-baseline`: what becomes of reports and the file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradlint.cli.failures import say
from gradlint.errors import UsageError

if TYPE_CHECKING:
    from gradlint.baseline import Entry
    from gradlint.config import Config
    from gradlint.report import Report


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """What the command line says of the baseline."""

    file: Path | None = None
    update: bool = False
    prune: bool = False

    def file_for(self, config: Config, settings: Path | None) -> Path | None:
        """Return the file: the command line's, else that of the settings, beside them.

        Raises:
            UsageError: If there is none to update or to prune, or to read.
        """
        file = self.file
        if file is None and config.baseline is not None:
            file = _near((settings.parent if settings is not None else Path()) / config.baseline)
        if file is None:
            if self.update or self.prune:
                option = "--update-baseline" if self.update else "--prune-baseline"
                raise UsageError(
                    f"{option}: expected a file: --baseline FILE, or 'baseline' in the settings"
                )
            return None
        if file.exists() or not self.update:
            from gradlint.baseline import read_baseline

            read_baseline(file)  # what is wrong with it is said before anything runs
        elif not file.parent.is_dir():
            raise UsageError(f"--baseline: no such folder: {str(file.parent)!r}")
        return file


def hold_against(
    reports: Sequence[Report], file: Path, options: BaselineOptions
) -> tuple[Report, ...]:
    """Return `reports` without what the baseline in `file` accepts; write it as `options` say.

    Raises:
        UsageError: If the file cannot be read or written.
    """
    from gradlint.acceptance import accept, is_complete, pruned, updated
    from gradlint.baseline import Baseline, read_baseline, write_baseline

    before = read_baseline(file) if file.exists() or not options.update else Baseline()
    entries = before.accepted
    names = [_name(report, file) for report in reports]
    if options.update:
        for report, name in zip(reports, names, strict=True):
            if is_complete(report):
                _say_new(report, name, entries, file)
                entries = updated(report, name, entries)
    results = [accept(r, name, entries) for r, name in zip(reports, names, strict=True)]
    stale = [entry for result in results for entry in result.stale]
    if options.prune:
        entries = pruned(entries, stale)
        results = [accept(r, name, entries) for r, name in zip(reports, names, strict=True)]
        if stale:
            say(f"{file}: {_count(len(stale), 'entry', 'entries')} taken out, no longer found")
    if entries != before.accepted or (options.update and not file.exists()):
        write_baseline(file, entries)
    return tuple(result.report for result in results)


def _near(file: Path) -> Path:
    """Return `file` relative to the working directory, if it is below it."""
    try:
        return file.resolve().relative_to(Path.cwd().resolve())
    except (ValueError, OSError):
        return file


def _name(report: Report, file: Path) -> str:
    """Return ``path:object`` of the target, the path as seen from the baseline's folder."""
    path = report.target.path
    if path is not None and Path(path).exists():
        try:
            path = os.path.relpath(Path(path).resolve(), file.resolve().parent)
        except ValueError:  # another drive
            path = str(path)
        path = path.replace(os.sep, "/")
    return ":".join(part for part in (path, report.target.object) if part)


def _say_new(report: Report, name: str, entries: Sequence[Entry], file: Path) -> None:
    """Say what is accepted from now on; each error, and whether it is a certain fault."""
    from gradlint.acceptance import accept
    from gradlint.rules import find_rule

    new = accept(report, name, entries).report.findings
    counts = Counter(found.severity.label for found in new)
    parts = [_count(counts[w], w, f"{w}s") for w in ("error", "warning", "note") if counts[w]]
    say(f"{file} now accepts {', '.join(parts) or 'nothing more'} of {name}")
    for found in new:
        if found.severity.label == "error":
            rule = find_rule(found.code)
            fact = ", a certain fault" if rule is not None and rule.exact else ""
            at = f" at {found.module or 'model'}" if found.module is not None else ""
            say(f"accepted, an error{fact}: {found.code} {found.rule}{at}")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
