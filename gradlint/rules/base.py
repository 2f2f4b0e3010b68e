"""Rule: the base of every rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.trace import Site, Trace


@dataclass(frozen=True)
class Rule(ABC):
    """One judgement. A subclass is one file; its instance fields are its options.

    `check` yields one finding per place; exemptions then explain away single places,
    and `gather` folds what is left into as few findings as a reader wants.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity]
    """The default, or, where the rule decides by the evidence, the usual severity."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """Metrics the rule reads. If none of them was observed the rule is skipped."""
    measure: ClassVar[str] = ""
    """The evidence that is held against ``limit``; the first of it where this is empty."""
    help: ClassVar[str] = ""
    stage: ClassVar[Stage] = Stage.FORWARD
    exact: ClassVar[bool] = False
    """True for a fact without a threshold; such findings outrank statistics."""

    @abstractmethod
    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each place in `trace` that is at fault."""

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why the rule cannot speak about `trace`, or None if it can."""
        if self.metrics and not trace.metrics.intersection(self.metrics):
            return f"not observed: {', '.join(self.metrics)}"
        return None

    def finding(
        self,
        site: Site | str | None,
        message: str,
        *,
        evidence: Mapping[str, Any] | None = None,
        trace: Trace | None = None,
        **changes: Any,
    ) -> Finding:
        """Return a finding of this rule at `site` (a Site, a module path, or None)."""
        if isinstance(site, Site):
            module: str | None = site.module
            depth = site.depth
        else:
            module = site
            facts = trace.modules.get(site) if trace is not None and site else None
            depth = facts.depth if facts else 0
        values: dict[str, Any] = {
            "code": self.code,
            "rule": self.name,
            "severity": self.severity,
            "message": message,
            "help": self.help,
            "module": module,
            "modules": () if module is None else (module,),
            "depth": depth,
            "stage": self.stage,
            "exact": self.exact,
            "evidence": dict(evidence or {}),
        }
        values.update(changes)
        return Finding(**values)

    def gather(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Fold findings of this rule: by default one for each severity.

        The first finding in order of severity and depth speaks for the others; its
        `modules` become those of all.
        """
        groups: dict[Severity, list[Finding]] = {}
        for found in findings:
            groups.setdefault(found.severity, []).append(found)
        for severity in sorted(groups, reverse=True):
            yield self.fold(sorted(groups[severity], key=lambda f: f.depth))

    def fold(self, group: list[Finding]) -> Finding:
        """Return one finding that stands for `group` (not empty, ordered by depth)."""
        first = group[0]
        if len(group) == 1:
            return first
        places = tuple(dict.fromkeys(m for f in group for m in f.modules))
        others = max(len(places), len(group)) - 1
        noun = "place" if others == 1 else "places"
        return first.but(modules=places, message=f"{first.message} (and {others} more {noun})")
