"""Severity, Finding, Cure, Source: what was concluded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad a finding is; ordered, so that `max` gives the worst.

    An error says that this run will not learn, or learns something else than you
    think; a warning that it learns worse or is one step from trouble; a note is
    worth knowing.
    """

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def label(self) -> str:
        """The lower-case word used in reports and in configuration."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Severity:
        """Return the severity called `text`.

        Raises:
            ValueError: If `text` is not "note", "warning" or "error".
        """
        try:
            return cls[text.upper()]
        except KeyError:
            raise ValueError(
                f"expected a severity, one of 'note', 'warning', 'error', got {text!r}"
            ) from None


class Stage(IntEnum):
    """When in a step a fault arises; earlier stages are causes of later ones."""

    DATA = 0
    WIRING = 1
    INITIALIZATION = 2
    FORWARD = 3
    LOSS = 4
    BACKWARD = 5
    UPDATE = 6
    PROGRESS = 7


@dataclass(frozen=True, slots=True)
class Source:
    """A line of the user's own code."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Cure:
    """What to change, and, once tried on a copy, what it changed.

    `before` and `after` hold the same keys: the rule's evidence without and with the cure.
    """

    summary: str
    code: str = ""
    verified: bool = False
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One case of one rule.

    `module` is a path as in `named_modules()` (``""`` is the model itself, None means no
    particular module); `modules` lists all the paths concerned, in order of depth.
    `evidence` holds numbers, strings and mappings of them: it is what machines read.
    """

    code: str
    rule: str
    severity: Severity
    message: str
    help: str = ""
    module: str | None = None
    modules: tuple[str, ...] = ()
    parameter: str | None = None
    source: Source | None = None
    step: int | None = None
    depth: int = 0
    stage: Stage = Stage.FORWARD
    exact: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)
    cure: Cure | None = None

    def but(self, **changes: Any) -> Finding:
        """Return a copy with `changes` applied."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Explained:
    """Something that looks like a fault of rule `code` and provably is none."""

    code: str
    module: str | None
    because: str
    name: str = ""
    source: Source | None = None
