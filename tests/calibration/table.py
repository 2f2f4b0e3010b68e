"""The table: how often healthy trainings were accused, and sick ones named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.calibration.case import Case

LOUD = ("warning", "error")
COLUMNS = ("check", "run", "both")
MOST_FINDINGS = 5


@dataclass(frozen=True)
class Judged:
    """A case under one seed in one column: its findings, causes first."""

    case: Case
    seed: int
    column: str
    verdict: str
    findings: tuple[tuple[str, str, bool, str, str], ...]

    @property
    def first(self) -> str:
        """Return the code of the first finding."""
        return self.findings[0][0] if self.findings else ""

    @property
    def alarms(self) -> list[str]:
        """Return the codes of warnings and errors."""
        return [f[0] for f in self.findings if f[1] in LOUD]

    @property
    def erred(self) -> bool:
        """Return whether there is an error."""
        return any(f[1] == "error" for f in self.findings)

    @property
    def top(self) -> int:
        """Return how many warnings and errors no other finding explains."""
        return sum(1 for f in self.findings if f[2] and f[1] in LOUD)

    @property
    def detected(self) -> bool:
        """Return whether anything was said: an alarm, or an accepted code as a note."""
        return bool(self.alarms) or any(f[0] in self.case.accepted for f in self.findings)

    @property
    def named(self) -> bool:
        """Return whether the first finding is a true cause."""
        return self.first in self.case.accepted

    @property
    def all_named(self) -> bool:
        """Return whether each planted fault is a finding that stands for itself."""
        causes = {f[0] for f in self.findings if f[2]}
        return all(causes & accepted for accepted in self.case.causes)

    @property
    def right(self) -> bool:
        """Return whether nothing is to be said against this judgement."""
        if self.case.group == "healthy":
            return not self.alarms
        return self.named and (self.case.group == "sick" or self.all_named)

    @property
    def said(self) -> str:
        """Return what was said that may be wrong: alarms, the causes of two, the first."""
        if self.case.group == "healthy":
            return "/".join(dict.fromkeys(self.alarms))
        if self.case.group == "mixture":
            return "/".join(dict.fromkeys(f[0] for f in self.findings if f[2])) or "nothing"
        return self.first or "nothing"


def judgements(cases: Iterable[Case], records: Iterable[dict[str, Any]]) -> list[Judged]:
    """Return the judgement of each run, and of each pair of check and run."""
    by_name = {case.name: case for case in cases}
    found: dict[tuple[str, int], dict[str, Judged]] = {}
    for record in records:
        case, mode = by_name.get(record["case"]), record["mode"]
        if "NotObserved" in record.get("error", "") and case and case.group != "healthy":
            record = record | {"verdict": "not-observed", "findings": []}
        if case is None or mode not in COLUMNS or "findings" not in record:
            continue
        said = tuple(tuple(f) for f in record["findings"])
        judged = Judged(case, record["seed"], mode, record["verdict"], said)  # type: ignore[arg-type]
        found.setdefault((case.name, record["seed"]), {})[mode] = judged
    result: list[Judged] = []
    for pair in found.values():
        result += pair.values()
        if len(pair) == 2 or next(iter(pair.values())).case.in_loop:
            result.append(together(list(pair.values())))
    return result


def together(pair: Sequence[Judged]) -> Judged:
    """Join what check and run say: the more certain one speaks first."""
    rank = {"error": 0, "warning": 1, "note": 2}
    ordered = sorted(pair, key=lambda j: rank[j.findings[0][1]] if j.findings else 3)
    findings = list(ordered[0].findings)
    known = {f[0] for f in findings}
    for judged in ordered[1:]:
        findings += [f for f in judged.findings if f[0] not in known]
    return Judged(pair[0].case, pair[0].seed, "both", ordered[0].verdict, tuple(findings))


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    z, p = 1.96, hits / total
    middle = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def share(hits: Iterable[bool]) -> str:
    """Return a share of runs in per cent, and what it is a share of."""
    all_ = list(hits)
    if not all_:
        return "–"
    return f"{100 * sum(all_) / len(all_):.1f} % ({sum(all_)} of {len(all_)})"


def _recipes_accused(judged: Sequence[Judged]) -> str:
    """Return the share of recipes with an alarm under any seed, with its interval."""
    names = {j.case.name for j in judged}
    accused = {j.case.name for j in judged if j.alarms}
    if not names:
        return "–"
    low, high = wilson(len(accused), len(names))
    of = f"{len(accused)} of {len(names)}"
    return f"{100 * len(accused) / len(names):.1f} % ({of}; {100 * low:.1f}–{100 * high:.1f})"


def rows(judged: Sequence[Judged], part: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one part: a name and a cell for each column."""

    def cells(group: str, figure: Any, singles: bool = False) -> tuple[str, ...]:
        return tuple(
            figure([
                j for j in judged
                if j.case.part == part and j.case.group == group and j.column == column
                and not (singles and not j.detected)
            ])
            for column in COLUMNS
        )  # fmt: skip

    yield ("healthy: runs with an error", *cells("healthy", lambda js: share(j.erred for j in js)))
    yield (
        "healthy: runs with a warning or error",
        *cells("healthy", lambda js: share(bool(j.alarms) for j in js)),
    )
    yield (
        "healthy: recipes with one under any seed (95 % interval)",
        *cells("healthy", _recipes_accused),
    )
    yield ("sick: detected", *cells("sick", lambda js: share(j.detected for j in js)))
    yield ("sick: true cause first", *cells("sick", lambda js: share(j.named for j in js)))
    yield (
        "sick and detected: exactly one cause",
        *cells("sick", lambda js: share(j.top <= 1 for j in js), singles=True),
    )
    yield (
        f"sick and detected: more than {MOST_FINDINGS} causes",
        *cells("sick", lambda js: share(j.top > MOST_FINDINGS for j in js), singles=True),
    )
    yield ("two faults: detected", *cells("mixture", lambda js: share(j.detected for j in js)))
    yield (
        "two faults: one of them first",
        *cells("mixture", lambda js: share(j.named for j in js)),
    )
    yield (
        "two faults: both stand as causes",
        *cells("mixture", lambda js: share(j.all_named for j in js)),
    )


def table(judged: Sequence[Judged], part: str) -> str:
    """Return the table of one part as Markdown."""
    head = f"| {part} part | `check` | a watched loop | both |"
    body = ["| " + " | ".join(row) + " |" for row in rows(judged, part)]
    return "\n".join([head, "|---|---|---|---|", *body])


def stability(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield in how many cases verdict and first finding are the same under every seed."""
    for column in ("check", "run"):
        seen: dict[str, list[Judged]] = {}
        for j in judged:
            if j.column == column:
                seen.setdefault(j.case.name, []).append(j)
        for low, high in ((3, 4), (5, 99)):
            agree = [
                len({(j.verdict, j.first) for j in js}) == 1
                for js in seen.values()
                if low <= len(js) <= high
            ]
            if agree:
                seeds = f"{low} seeds" if low == 5 else "3 seeds"
                yield f"{column}, {seeds}: same verdict and first finding in {share(agree)} recipes"


def wrong(judged: Sequence[Judged]) -> Iterator[str]:
    """Yield a line for each case that is judged wrongly in some way, with the reason."""
    seen: dict[tuple[str, str], list[Judged]] = {}
    for j in judged:
        if j.column != "both" and not j.right:
            seen.setdefault((j.case.name, j.column), []).append(j)
    for (name, column), js in seen.items():
        case = js[0].case
        said = "; ".join(sorted({j.said for j in js}))
        wanted = " and ".join("/".join(sorted(c)) for c in case.causes) or "nothing"
        seeds = ",".join(str(j.seed) for j in sorted(js, key=lambda j: j.seed))
        why = case.why.get(column) or case.why.get("") or "not looked into"
        yield (
            f"{case.part} {case.group} {name} ({column}, seeds {seeds}): said {said}, "
            f"true is {wanted}: {why}"
        )
