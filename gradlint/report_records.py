"""The parts of a report, as frozen records: what every field of the JSON means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from gradlint.finding import Severity, Source

Level = Annotated[
    Severity,
    BeforeValidator(lambda v: Severity.parse(v) if isinstance(v, str) else v),
    PlainSerializer(lambda v: v.label, return_type=str),
]


class Record(BaseModel):
    """Base of all parts of a report: frozen; fields of later versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class SourceRecord(Record):
    """A line of the user's own code."""

    file: str
    line: int

    @classmethod
    def of(cls, source: Source) -> SourceRecord:
        """Return the record of `source`, its file relative to the working directory."""
        try:
            file = str(Path(source.file).relative_to(Path.cwd()))
        except (ValueError, OSError):
            file = source.file
        return cls(file=file, line=source.line)


class CureRecord(Record):
    """What to change, and, once tried on a copy, what it changed."""

    summary: str
    code: str = ""
    verified: bool = False
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)


class ReportedFinding(Record):
    """A finding with its place in the report: its id, its cause, its symptoms (ids)."""

    id: int
    code: str
    rule: str
    severity: Level
    module: str | None = None
    modules: tuple[str, ...] = ()
    parameter: str | None = None
    source: SourceRecord | None = None
    step: int | None = None
    message: str
    cause: int | None = None
    symptoms: tuple[int, ...] = ()
    evidence: dict[str, Any] = Field(default_factory=dict)
    help: str = ""
    cure: CureRecord | None = None
    because: str = ""
    """How the cause brings this about; empty for a cause."""


class ExplainedRecord(Record):
    """Something that looks like a fault and provably is none; `name` is the exemption's."""

    code: str
    module: str | None = None
    because: str
    name: str = ""


class Suppressed(Record):
    """A finding the user asked not to see, and by what: "baseline", "comment", "config".

    What a baseline silences is kept whole; `reason` is what the user gave as one.
    """

    code: str
    module: str | None = None
    by: str
    reason: str = ""
    rule: str = ""
    severity: Level | None = None
    message: str = ""
    parameter: str | None = None
    source: SourceRecord | None = None


class TargetRecord(Record):
    """What was checked, and what was assumed of it."""

    path: str | None = None
    object: str | None = None
    command: str = "check"
    parameters: int | None = None
    device: str | None = None
    assumed: dict[str, Annotated[str, BeforeValidator(str)]] = Field(default_factory=dict)


class Summary(Record):
    """Counts."""

    error: int = 0
    warning: int = 0
    note: int = 0
    steps: int = 0
    rules_run: int = 0


WATCHING = "watching"
"""What a fault of gradlint's own ends: the target's run goes on."""


class Failure(Record):
    """The exception that ended the target's run, or (`during` "watching") our watching of it."""

    during: str = ""
    type: str = ""
    message: str = ""

    @property
    def sentence(self) -> str:
        """What became of the target, as the words that follow its name."""
        if self.during == WATCHING:
            happened = "was not watched to its end"
        else:
            happened = f"stopped during {self.during}" if self.during else "stopped"
        return f"{happened}: {self.type}: {self.message}"


class ModuleRow(Record):
    """What was measured at one module, or at one activation called as a function.

    `metrics` are medians at initialization (of the training, for what exists only there);
    `latest` are the values of the last training step observed. `module` is the path of the
    module where `path` is none itself ("fc1:relu" is at "fc1").
    """

    path: str
    kind: str
    depth: int
    metrics: dict[str, float] = Field(default_factory=dict)
    latest: dict[str, float] = Field(default_factory=dict)
    module: str = ""
    leaf: bool = True


class ParameterRow(Record):
    """What was measured of one parameter; `metrics` and `latest` as in `ModuleRow`."""

    path: str
    metrics: dict[str, float] = Field(default_factory=dict)
    latest: dict[str, float] = Field(default_factory=dict)
    module: str = ""
    shape: tuple[int, ...] = ()
    trainable: bool = True


class FlowRow(Record):
    """The gradient that reaches one weight layer: its norm, and what made it so.

    Of several batches the middle one speaks. `decades` are log10 factors by kind of
    operation between the loss and this layer; `layers`, given for the earliest layer, are
    the same by module, structural operations left out.
    """

    path: str
    depth: int
    norm: float
    decades: dict[str, float] = Field(default_factory=dict)
    layers: dict[str, float] = Field(default_factory=dict)


class History(Record):
    """One metric at each weight layer from step to step, in order of execution.

    `steps` are the first ones of each column; a value of None was not measured, one that is
    not finite stands for its whole column.
    """

    steps: tuple[int, ...]
    rows: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
