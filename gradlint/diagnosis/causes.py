"""Causes: findings ordered, and folded under what brought them about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradlint.diagnosis.mechanisms import MECHANISMS, Mechanism
from gradlint.finding import Finding, Severity


@dataclass(frozen=True, slots=True)
class Linked:
    """A finding with its place in the diagnosis: indices into the same sequence."""

    finding: Finding
    cause: int | None = None
    symptoms: tuple[int, ...] = ()
    because: str = ""


def _given(finding: Finding) -> bool:
    """Whether it is a setting, or was in the data: nothing in a run brings that about."""
    in_data = finding.evidence.get("phase") in ("input", "target") and (finding.step or 0) <= 1
    odd_batch = bool(finding.evidence.get("of_one_batch"))
    return bool(finding.evidence.get("maximize")) or in_data or odd_batch


def link(
    findings: Iterable[Finding], mechanisms: Sequence[Mechanism] = MECHANISMS
) -> tuple[Linked, ...]:
    """Order `findings`, causes first, and fold each symptom under its root cause.

    Exact facts come before statistics, then earlier steps and stages before later ones.
    A finding is a symptom if a mechanism leads to it, in any number of stages, from a
    finding that is at least a warning. Roots are ordered by the worst that they
    explain; each root's symptoms follow it.
    """
    ranked = sorted(findings, key=_rank)
    parents = [_parent(index, ranked, mechanisms) for index in range(len(ranked))]
    roots = [_root(index, parents) for index in range(len(ranked))]
    groups: dict[int, list[int]] = {}
    for index, root in enumerate(roots):
        groups.setdefault(root, [])
        if index != root:
            groups[root].append(index)

    def weight(root: int) -> tuple[int, int]:
        worst = max(ranked[i].severity for i in (root, *groups[root]))
        return (-worst, root)

    order: list[int] = []
    for root in sorted(groups, key=weight):
        order += [root, *sorted(groups[root], key=lambda i: (-ranked[i].severity, i))]
    place = {old: new for new, old in enumerate(order)}
    return tuple(
        Linked(
            ranked[old],
            cause=None if roots[old] == old else place[roots[old]],
            symptoms=tuple(sorted(place[i] for i in groups.get(old, ()))),
            because=parents[old][1] if parents[old] is not None else "",  # type: ignore[index]
        )
        for old in order
    )


def _rank(finding: Finding) -> tuple[int, bool, int, int, int, str]:
    step = finding.step or 0
    note = finding.severity is Severity.NOTE
    return (int(note), not finding.exact, step, finding.stage, finding.depth, finding.code)


def _parent(
    index: int, ranked: Sequence[Finding], mechanisms: Sequence[Mechanism]
) -> tuple[int, str] | None:
    """Return the finding that explains `ranked[index]`, and how.

    Mechanisms are asked in order, so the explanation nearest the origin wins. A pair of
    rules that explain each other is settled by rank, unless nothing explains one of them.
    """
    symptom = ranked[index]
    if _given(symptom):
        return None
    for mechanism in mechanisms:
        for other, cause in enumerate(ranked):
            if cause.code == symptom.code or not mechanism.leads(cause, symptom):
                continue
            if cause.severity is Severity.NOTE and symptom.severity > Severity.NOTE:
                continue
            mutual = index < other and any(m.leads(symptom, cause) for m in mechanisms)
            if mutual and not _given(cause):
                continue
            return other, mechanism.because
    return None


def _root(index: int, parents: Sequence[tuple[int, str] | None]) -> int:
    """Follow parents to the end; in a circle the best-ranked finding is the root."""
    path = [index]
    parent = parents[index]
    while parent is not None:
        if parent[0] in path:
            return min(path[path.index(parent[0]) :])
        path.append(parent[0])
        parent = parents[parent[0]]
    return path[-1]
