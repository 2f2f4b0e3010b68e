"""Baseline: the findings a project has accepted, each with the value it may not exceed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gradlint._version import __version__
from gradlint.errors import ConfigError, UsageError
from gradlint.report_records import Level, ReportedFinding
from gradlint.rules import find_rule

TOLERANCE = 0.1
"""Share of its accepted value by which a finding may be worse: other machines round otherwise."""

Worse = Literal["larger", "smaller"]


class Entry(BaseModel):
    """One accepted finding.

    `modules` are the places it may be at, as patterns (``layers.*``); empty for a finding of no
    module. `value` is what the rule measured, None for a fact without a number; `worse` is
    the direction in which it may not go on. `target` is a pattern, too; None is any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    rule: str = ""
    target: str | None = None
    modules: tuple[str, ...] = ()
    parameter: str | None = None
    severity: Level | None = None
    measure: str | None = None
    value: float | None = None
    worse: Worse | None = None
    reason: str = ""

    def speaks_of(self, target: str, found: ReportedFinding) -> bool:
        """Whether the rule, the target and the parameter are those of the entry."""
        return (
            self.code == found.code
            and (self.target is None or fits(target, self.target))
            and (self.parameter is None or fits(found.parameter or "", self.parameter))
        )

    def covers(self, place: str | None) -> bool:
        """Whether the entry accepts a finding at `place`; None is no module at all."""
        if place is None:
            return not self.modules or "*" in self.modules
        return any(fits(place, pattern) for pattern in self.modules)

    def __str__(self) -> str:
        first = f" at {self.modules[0] or 'model'}" if self.modules else ""
        others = f" and {len(self.modules) - 1} more" if len(self.modules) > 1 else ""
        of = f" of {self.target}" if self.target else ""
        return f"{self.code} {self.rule}".rstrip() + first + others + of


def fits(name: str, pattern: str) -> bool:
    """Whether `name` is `pattern`, or matches it as a file's name would."""
    return name == pattern or fnmatchcase(name, pattern)


class Baseline(BaseModel):
    """What is in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Annotated[Literal["gradlint.baseline/1"], Field(alias="schema")] = (
        "gradlint.baseline/1"
    )
    gradlint: str = __version__
    accepted: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Measure:
    """The number a rule holds against its limit, and the direction that is worse."""

    name: str
    value: float
    worse: Worse

    def exceeds(self, accepted: float) -> bool:
        """Whether the value is worse than `accepted`, by more than the tolerance."""
        slack = TOLERANCE * abs(accepted)
        if self.worse == "larger":
            return self.value > accepted + slack
        return self.value < accepted - slack


def measure_of(found: ReportedFinding) -> Measure | None:
    """Return the main number of a finding; None for a fact, or where there is no limit.

    It is the evidence its rule names as `measure`, else the first; of several places the worst.
    """
    rule = find_rule(found.code)
    if rule is None or rule.exact:
        return None
    name = rule.measure or next(iter(found.evidence), "")
    values, limits = _numbers(found.evidence.get(name)), _numbers(found.evidence.get("limit"))
    if not values or not limits:
        return None
    if max(values) > max(limits):
        return Measure(name, max(values), "larger")
    if min(values) <= min(limits):
        return Measure(name, min(values), "smaller")
    return None


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    several = value if isinstance(value, (list, tuple)) else [value]
    numbers = [float(v) for v in several if isinstance(v, (int, float)) and type(v) is not bool]
    return numbers if all(math.isfinite(v) for v in numbers) else []


def entry_of(target: str, found: ReportedFinding, reason: str = "") -> Entry:
    """Return the entry that accepts `found` as it is."""
    measure = measure_of(found)
    return Entry(
        code=found.code,
        rule=found.rule,
        target=target,
        modules=tuple(place for place in places_of(found) if place is not None),
        parameter=found.parameter,
        severity=found.severity,
        measure=None if measure is None else measure.name,
        value=None if measure is None else measure.value,
        worse=None if measure is None else measure.worse,
        reason=reason,
    )


def places_of(found: ReportedFinding) -> tuple[str | None, ...]:
    """Return the modules of a finding; None alone for one of no module."""
    return found.modules or (found.module,)


def read_baseline(file: str | os.PathLike[str]) -> Baseline:
    """Return the baseline in `file`.

    Raises:
        ConfigError: If it cannot be read, is no baseline, or holds what gradlint does not know.
    """
    path = Path(file)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Baseline.model_validate(data)
    except FileNotFoundError:
        raise ConfigError(
            f"expected a baseline at {str(path)!r}, found none; --update-baseline makes one"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path} is no baseline: {place}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as a baseline: {error}") from error


def write_baseline(file: str | os.PathLike[str], entries: Iterable[Entry]) -> None:
    """Write `entries` to `file`, sorted, so that changes read well in a diff.

    Raises:
        UsageError: If it cannot be written; what was there before is left.
    """
    path = Path(file)
    ordered = sorted(entries, key=lambda e: (e.target or "", e.code, e.modules, e.parameter or ""))
    data = Baseline(accepted=tuple(ordered)).model_dump(by_alias=True)
    text = json.dumps(data, indent=2, allow_nan=False)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(f"cannot write the baseline {str(path)!r}: {error.strerror}") from error
