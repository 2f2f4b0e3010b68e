"""Judge: a trace in; findings, explanations and skipped rules out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gradlint.diagnosis.exemptions import EXEMPTIONS, Exemption
from gradlint.errors import GradlintError, RuleError
from gradlint.finding import Explained, Finding, Severity
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class Judgement:
    """What all rules said of one run, before causes are told from symptoms."""

    findings: tuple[Finding, ...] = ()
    explained: tuple[Explained, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    rules_run: tuple[str, ...] = ()


def judge(
    trace: Trace,
    rules: Sequence[Rule],
    exemptions: Iterable[Exemption] | None = None,
) -> Judgement:
    """Run `rules` over `trace`.

    Args:
        trace: What was measured.
        rules: Rule instances, with their options.
        exemptions: All of `EXEMPTIONS` by default; tests leave single ones out.

    Raises:
        RuleError: If a rule raises; the message names it.
    """
    active = tuple(EXEMPTIONS if exemptions is None else exemptions)
    findings: list[Finding] = []
    explained: dict[tuple[str, str | None, str], Explained] = {}
    skipped: dict[str, str] = {}
    rules_run: list[str] = []
    for rule in rules:
        reason = rule.skip_reason(trace)
        if reason is not None:
            skipped[rule.code] = reason
            continue
        rules_run.append(rule.code)
        try:
            kept: list[Finding] = []
            for found in rule.check(trace):
                because = _explanation(active, trace, found)
                if because is None:
                    kept.append(with_source(trace, found))
                else:
                    place = found.parameter or found.module
                    explained[(found.code, place, because.because)] = because
            findings.extend(rule.gather(kept))
        except GradlintError:
            raise
        except Exception as error:
            raise RuleError(f"rule {rule.code} ({rule.name}) failed: {error!r}") from error
    return Judgement(tuple(findings), tuple(explained.values()), skipped, tuple(rules_run))


def _explanation(
    exemptions: Iterable[Exemption], trace: Trace, found: Finding
) -> Explained | None:
    for candidate in exemptions:
        because = candidate.covers(trace, found)
        if because is not None:
            place = found.parameter or found.module
            return Explained(found.code, place, because, candidate.name)
    return None


def with_source(trace: Trace, found: Finding) -> Finding:
    """Return `found` with the line of its module, where it has none and one is known."""
    if found.source is not None or found.module is None:
        return found
    path = found.module
    while True:
        facts = trace.modules.get(path)
        if facts is not None and facts.source is not None:
            return found.but(source=facts.source)
        if not path:
            return found
        path = path.rpartition(".")[0]


def combine(judgements: Sequence[Judgement]) -> Judgement:
    """Combine the judgements of the same model under several seeds.

    The first judgement is of the run that was trained; the others repeat it. A
    statistical error that does not return in a majority of the seeds becomes a warning;
    exact facts stand. What only other seeds show is added as a warning at most, when it
    returns in at least two.
    """
    if len(judgements) == 1:
        return judgements[0]
    first, *others = judgements
    findings: list[Finding] = []
    for found in first.findings:
        returned = 1 + sum(_has(other, found.code) for other in others)
        demote = (
            found.severity is Severity.ERROR
            and not found.exact
            and returned * 2 <= len(judgements)
        )
        if demote:
            found = found.but(
                severity=Severity.WARNING,
                message=f"{found.message} (in {returned} of {len(judgements)} seeds)",
            )
        findings.append(found)
    known = {found.code for found in first.findings}
    for index, other in enumerate(others):
        for found in other.findings:
            returned = sum(_has(o, found.code) for o in others)
            if found.code in known or (returned < 2 and not found.exact) or index > 0 and any(
                f.code == found.code for f in findings
            ):
                continue
            severity = found.severity if found.exact else min(found.severity, Severity.WARNING)
            findings.append(
                found.but(
                    severity=severity,
                    message=f"{found.message} (in {returned} of {len(judgements)} seeds)",
                )
            )
    return Judgement(tuple(findings), first.explained, first.skipped, first.rules_run)


def _has(judgement: Judgement, code: str) -> bool:
    return any(found.code == code for found in judgement.findings)
