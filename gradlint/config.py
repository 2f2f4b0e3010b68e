"""Config: which rules run, with which options, and what counts as failure. Read from files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_snake

from gradlint.errors import ConfigError
from gradlint.selection import active_rules as active_rules
from gradlint.selection import apply_severity as apply_severity
from gradlint.selection import module_ignores as module_ignores
from gradlint.selection import no_such
from gradlint.selection import take_suppressed as take_suppressed

YAML_NAMES = ("gradlint.yaml", ".gradlint.yaml")

FailOn = Literal["error", "warning", "note", "never"]
SeverityWord = Literal["error", "warning", "note"]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        populate_by_name=True,
        alias_generator=lambda name: to_snake(name).replace("_", "-"),
    )


class TargetConfig(_Settings):
    """What to check and where its parts are; what is None is looked for."""

    path: str | None = None
    model: str | None = None
    batch: str | None = None
    input: Words = ()
    loss: str | None = None
    optimizer: str | None = None
    lr: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    batch_size: Annotated[int | None, Field(ge=1)] = None
    training_step: str | None = None


class Config(_Settings):
    """All settings. Rules are named by code, by the beginning of a code, or by name.

    `select` is None where all rules are meant. The longest selector that matches a rule
    decides; of two equally long ones, `ignore` wins.
    """

    select: Annotated[tuple[str, ...] | None, BeforeValidator(_as_tuple)] = None
    ignore: Words = ()
    extend_select: Words = ()
    severity: dict[str, SeverityWord] = Field(default_factory=dict)
    per_module_ignores: dict[str, Words] = Field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)
    fail_on: FailOn = "error"
    baseline: str | None = None
    """File of accepted findings, relative to the settings' own folder."""
    target: TargetConfig = TargetConfig()

    def but(self, **changes: Any) -> Config:
        """Return a copy with `changes` applied."""
        return self.model_copy(update=changes)

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values, under the names that files use."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file with settings, and what the user is told about the others beside it."""

    path: Path
    notes: tuple[str, ...] = ()


def find_config(start: str | os.PathLike[str] | None = None) -> ConfigFile | None:
    """Return the closest file with settings at or above the folder `start`, if there is one.

    In one folder ``gradlint.yaml`` goes before ``.gradlint.yaml`` and ``pyproject.toml``.

    Raises:
        ConfigError: If a ``pyproject.toml`` on the way cannot be read.
    """
    folder = Path(start or Path.cwd()).resolve()
    for place in (folder, *folder.parents):
        files = [place / name for name in YAML_NAMES if (place / name).is_file()]
        toml = place / "pyproject.toml"
        if toml.is_file() and _read_toml(toml) is not None:
            files.append(toml)
        if files:
            notes = [f"settings come from {files[0]}; {other} is not read" for other in files[1:]]
            return ConfigFile(files[0], tuple(notes))
    return None


def read_config(file: str | os.PathLike[str]) -> Config:
    """Return the settings in a YAML file, or in ``[tool.gradlint]`` of a TOML file.

    Raises:
        ConfigError: If the file cannot be read, or holds an unknown key, rule or value.
    """
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"expected a configuration file at {str(path)!r}, found none")
    if path.suffix in (".yaml", ".yml"):
        return parse_config(_read_yaml(path), str(path))
    section = _read_toml(path)
    if section is None:
        raise ConfigError(f"expected a section [tool.gradlint] in {path}, found none")
    return parse_config(section, str(path))


def load_config(start: str | os.PathLike[str] | None = None) -> Config:
    """Return the settings that hold in the folder `start`, by default the current one."""
    found = find_config(start)
    return Config() if found is None else read_config(found.path)


def parse_config(section: Mapping[str, Any], source: str = "") -> Config:
    """Return the settings in `section`, checked down to the options of single rules.

    Raises:
        ConfigError: If a key, a rule, an option or a value is unknown; says what was meant.
    """
    where = f" (in {source})" if source else ""
    try:
        config = Config.model_validate(dict(section))
        active_rules(config)
    except ValidationError as error:
        raise ConfigError(_first_mistake(error) + where) from error
    except ConfigError as error:
        raise ConfigError(f"{error}{where}") from error
    return config


def _read_toml(path: Path) -> Mapping[str, Any] | None:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    tool = data.get("tool", {})
    section = tool.get("gradlint") if isinstance(tool, dict) else None
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"expected a table [tool.gradlint] in {path}, got {section!r}")
    return section


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"expected settings as 'key: value' in {path}, got {data!r}")
    return data


def _first_mistake(error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        model = TargetConfig if len(place) > 1 else Config
        kind = "setting" if len(place) == 1 else f"setting of {place[0]!r}"
        return no_such(kind, place[-1], [f.alias or n for n, f in model.model_fields.items()])
    expected = first["msg"].removeprefix("Input should be ").replace("tuple", "list")
    return f"expected {expected} for {'.'.join(place)!r}, got {first['input']!r}"
