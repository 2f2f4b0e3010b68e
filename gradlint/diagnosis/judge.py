"""Judge: a trace in; findings, explanations and skipped rules out."""

from __future__ import annotations

from collections import Counter
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


def _explanation(exemptions: Iterable[Exemption], trace: Trace, found: Finding) -> Explained | None:
    for candidate in exemptions:
        because = candidate.covers(trace, found)
        if because is not None:
            place = found.parameter or found.module
            source = with_source(trace, found).source
            return Explained(found.code, place, because, candidate.name, source)
    return None


def with_source(trace: Trace, found: Finding) -> Finding:
    """Return `found` with its line, where it has none and one is known.

    That is the line of the operation its evidence names, if its module calls that as a
    function (of no module: if one alone does); else the line of its module, or of the closest
    owner that has one.
    """
    if found.source is not None:
        return found
    words = [word for word in found.evidence.values() if isinstance(word, str)]
    paths = trace.modules if found.module is None else {found.module} & trace.modules.keys()
    near = [trace.modules[path].functions for path in (paths if words else ())]
    called = {functions[word] for word in words for functions in near if word in functions}
    if len(called) == 1:
        return found.but(source=called.pop())
    if found.module is None:
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

    The first judgement speaks for all. A statistical error that does not return in a
    majority of the seeds becomes a warning; exact facts stand. What the first does not
    show is added if it is exact, or, as a warning at most, if it returns in two others.
    """
    first, *others = judgements
    counts = Counter(code for judgement in judgements for code in _codes(judgement))
    seeds = len(judgements)

    def weighed(found: Finding, *, certain: bool) -> Finding:
        if certain or found.exact:
            return found
        severity = min(found.severity, Severity.WARNING)
        message = f"{found.message} (in {counts[found.code]} of {seeds} seeds)"
        return found.but(severity=severity, message=message)

    findings = [
        weighed(found, certain=found.severity < Severity.ERROR or 2 * counts[found.code] > seeds)
        for found in first.findings
    ]
    known = _codes(first)
    for other in others:
        findings += [
            weighed(found, certain=False)
            for found in other.findings
            if found.code not in known and (found.exact or counts[found.code] > 1)
        ]
        known |= _codes(other)
    return Judgement(tuple(findings), first.explained, first.skipped, first.rules_run)


def _codes(judgement: Judgement) -> frozenset[str]:
    return frozenset(found.code for found in judgement.findings)
