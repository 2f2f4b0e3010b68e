"""Settings of a run: the files' and, above them, the command line's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlint.cli.failures import say

if TYPE_CHECKING:
    from gradlint.config import Config


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says of the settings; `notes` are told on stderr if wanted."""

    file: Path | None = None
    isolated: bool = False
    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    fail_on: str | None = None
    notes: bool = True


def split_words(words: Iterable[str] | None) -> tuple[str, ...]:
    """Return the comma-separated parts of `words`."""
    return tuple(part.strip() for word in words or () for part in word.split(",") if part.strip())


def settings_for(target: str | None, overrides: Overrides) -> tuple[Config, Path | None]:
    """Return the settings for `target`, and the file they come from.

    What `--select` asks for by name is not ignored because of a file.

    Raises:
        ConfigError: If a file or an option holds what gradlint does not know.
    """
    from gradlint.config import Config, active_rules, find_config, read_config

    path = overrides.file
    if path is None and not overrides.isolated:
        found = find_config(_folder(target))
        path = None if found is None else found.path
        if found is not None and overrides.notes:
            for note in found.notes:
                say(note)
    config = Config() if path is None else read_config(path)
    changes: dict[str, Any] = {
        "ignore": (*config.ignore, *overrides.ignore),
        "extend_select": (*config.extend_select, *overrides.extend_select),
    }
    if overrides.select is not None:
        changes |= {"select": overrides.select, "ignore": overrides.ignore}
    if overrides.fail_on is not None:
        changes["fail_on"] = overrides.fail_on
    config = config.but(**changes)
    active_rules(config)
    return config, path


def _folder(target: str | None) -> Path:
    """The folder of a target that is a file; the current one otherwise."""
    if target is None:
        return Path.cwd()
    for candidate in (target, target.rpartition(":")[0]):
        if candidate and Path(candidate).exists():
            path = Path(candidate)
            return path if path.is_dir() else path.parent
    return Path.cwd()


def print_settings(targets: Sequence[str], overrides: Overrides) -> int:
    """Print the settings of each target as YAML, with the rules that run; return 0."""
    import yaml

    from gradlint.config import active_rules

    for target in targets or (None,):
        config, path = settings_for(target, overrides)
        about = f"# {target}\n" if target else ""
        source = f"# from {path}\n" if path else "# from no file\n"
        text = yaml.safe_dump(config.settings(), sort_keys=False, allow_unicode=False)
        rules = ", ".join(rule.code for rule in active_rules(config))
        sys.stdout.write(f"{about}{source}{text}# rules that run: {rules or 'none'}\n")
    return 0
