"""Acceptance: a report held against a baseline, and a baseline brought up to a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradlint.baseline import Entry, Measure, entry_of, fits, measure_of, places_of
from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import ReportedFinding, Suppressed


@dataclass(frozen=True, slots=True)
class Accepted:
    """A report without what is accepted, and the entries (or patterns) that met nothing."""

    report: Report
    stale: tuple[Entry, ...] = ()


def accept(report: Report, target: str, entries: Sequence[Entry]) -> Accepted:
    """Return `report` without the findings that `entries` accept.

    A finding stays if it is worse than what was accepted, at more places, or of a higher
    severity; its message then says so. Entries are stale if their target and rule were looked
    at and nothing was found: each is returned with its useless patterns alone.
    """
    taken: dict[int, Suppressed] = {}
    kept: dict[int, ReportedFinding] = {}
    for found in report.findings:
        speaking = [entry for entry in entries if entry.speaks_of(target, found)]
        covering = [e for e in speaking if any(e.covers(place) for place in places_of(found))]
        if not covering:
            continue
        objection = _objection(found, covering)
        if objection:
            message = f"{found.message} ({objection})"
            kept[found.id] = found.model_copy(update={"message": message})
        else:
            taken[found.id] = _suppressed(found, covering[0])
    stale = tuple(_stale(report, target, entries))
    shown = [kept.get(found.id, found) for found in report.findings]
    changed = report.model_copy(update={"findings": tuple(shown)}).silencing(taken)
    notices = [f"the baseline accepts {entry}, which is no longer found" for entry in stale]
    changed = changed.model_copy(update={"notices": (*changed.notices, *notices)})
    return Accepted(changed, stale)


def _suppressed(found: ReportedFinding, entry: Entry) -> Suppressed:
    return Suppressed(
        code=found.code,
        module=found.module,
        by="baseline",
        reason=entry.reason,
        rule=found.rule,
        severity=found.severity,
        message=found.message,
        parameter=found.parameter,
        source=found.source,
    )


def _objection(found: ReportedFinding, entries: Sequence[Entry]) -> str:
    """Return why `found` is worse than what `entries` accept; empty if it is not."""
    new = [p for p in places_of(found) if not any(entry.covers(p) for entry in entries)]
    if new:
        others = f" and {len(new) - 1} more" if len(new) > 1 else ""
        return f"the baseline does not accept it at {new[0] or 'model'}{others}"
    levels = [entry.severity for entry in entries if entry.severity is not None]
    if levels and len(levels) == len(entries) and found.severity > max(levels):
        return f"the baseline accepts a {max(levels).label}"
    measure = measure_of(found)
    limits = [entry.value for entry in entries if entry.value is not None]
    if measure is None or len(limits) < len(entries) or not _exceeded(measure, entries):
        return ""
    best = max(limits) if measure.worse == "larger" else min(limits)
    name = measure.name.replace("_", " ")
    return f"{name} {measure.value:.2g}, the baseline accepts {best:.2g}"


def _exceeded(measure: Measure, entries: Iterable[Entry]) -> bool:
    return all(
        entry.value is not None and (entry.worse != measure.worse or measure.exceeds(entry.value))
        for entry in entries
    )


def _stale(report: Report, target: str, entries: Iterable[Entry]) -> Iterable[Entry]:
    """Yield what of `entries` met nothing, although it was looked for.

    A rule that had nothing to judge looked for it, too, unless nothing was trained.
    """
    if not is_complete(report):
        return
    looked_for = {*report.rules, *(report.skipped if report.summary.steps else ())}
    for entry in entries:
        if entry.code not in looked_for or entry.target is None or not fits(target, entry.target):
            continue
        met = [found for found in report.findings if entry.speaks_of(target, found)]
        places = [place for found in met for place in places_of(found)]
        if not any(entry.covers(place) for place in places):
            yield entry
            continue
        useless = [p for p in entry.modules if not any(fits(at or "", p) for at in places)]
        if useless:
            yield entry.model_copy(update={"modules": tuple(useless)})


def is_complete(report: Report) -> bool:
    """Whether the target ran to its end, so that what is missing is really gone."""
    return report.error is None and report.verdict != "not-observed"


def updated(report: Report, target: str, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return `entries` and what else accepts every finding of `report` as it is now.

    An entry that covers a finding takes over its value and keeps its patterns and its reason.
    """
    result = list(entries)
    grown: dict[int, list[Entry]] = {}
    for found in report.findings:
        new = entry_of(target, found)
        index = _home(result, target, found)
        if index is None:
            result.append(new)
            continue
        grown.setdefault(index, []).append(new)
    for index, news in grown.items():
        result[index] = _refreshed(result[index], news)
    return tuple(result)


def _home(entries: Sequence[Entry], target: str, found: ReportedFinding) -> int | None:
    """The entry that a finding belongs to: one that covers most of its places."""
    best: tuple[int, int] | None = None
    for index, entry in enumerate(entries):
        if not entry.speaks_of(target, found):
            continue
        covered = sum(entry.covers(place) for place in places_of(found))
        if covered and (best is None or covered > best[0]):
            best = (covered, index)
    return None if best is None else best[1]


def _refreshed(entry: Entry, news: Sequence[Entry]) -> Entry:
    """Return `entry` with the worst values of `news`, and the places it lacks."""
    worst = news[0]
    for new in news[1:]:
        if new.value is not None and worst.value is not None and new.worse == worst.worse:
            further = new.value > worst.value if new.worse == "larger" else new.value < worst.value
            worst = new if further else worst
    lacking = [p for new in news for p in new.modules if not entry.covers(p)]
    levels = [new.severity for new in news if new.severity is not None]
    return entry.model_copy(
        update={
            "rule": entry.rule or worst.rule,
            "modules": (*entry.modules, *dict.fromkeys(lacking)),
            "severity": max(levels, default=Severity.NOTE) if entry.severity else None,
            "measure": worst.measure,
            "value": worst.value,
            "worse": worst.worse,
        }
    )


def pruned(entries: Iterable[Entry], stale: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return `entries` without `stale` ones, and without the stale patterns of others."""
    result = []
    for entry in entries:
        useless: set[str] = set()
        gone = False
        for old in stale:
            if old.model_copy(update={"modules": entry.modules}) == entry:
                useless.update(old.modules)
                gone = gone or set(old.modules) == set(entry.modules)
        kept = tuple(p for p in entry.modules if p not in useless)
        if not gone:
            result.append(
                entry if kept == entry.modules else entry.model_copy(update={"modules": kept})
            )
    return tuple(result)
