"""Markdown: the verdict and a table of causes; what to do folds out beneath it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import CureRecord, ReportedFinding
from gradlint.reporters.base import Options, count, number
from gradlint.reporters.places import clean, failure, place_of, target_name, where

_VERDICTS = {"healthy": "✓", "suspicious": "▲", "unhealthy": "✗", "not-observed": "○"}
_MARKS = {Severity.ERROR: "✗", Severity.WARNING: "▲", Severity.NOTE: "○"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#!])")
_FENCE = re.compile(r"`{3,}")


def render(report: Report, _: Options) -> str:
    """Return `report` as Markdown, in the parts of it that GitHub and GitLab know."""
    blocks = [*_head(report), *_table(report), *_details(report), *_rest(report)]
    return "\n\n".join(blocks) + "\n"


def _head(report: Report) -> Iterator[str]:
    verdict = f"{_VERDICTS[report.verdict]} gradlint: {report.verdict}"
    yield f"### {verdict} — {_code(target_name(report))}"
    summary, target = report.summary, report.target
    parts = [
        count(n, level) for level in ("error", "warning", "note") if (n := getattr(summary, level))
    ]
    parts += [count(target.parameters, "parameter")] if target.parameters is not None else []
    parts += [_text(target.device)] if target.device else []
    parts += [count(summary.steps, "step"), count(summary.rules_run, "rule")]
    loss = [value for _, value in report.series.get("loss", ())]
    parts += [f"loss {number(loss[0])} → {number(loss[-1])}"] if len(loss) > 1 else []
    yield " · ".join(parts)
    if report.error is not None:
        yield f"**{_text(failure(report))}**"


def _table(report: Report) -> Iterator[str]:
    if not report.causes:
        return
    rows = ["| | rule | where | what |", "|---|---|---|---|"]
    for found in report.causes:
        at = where(found)
        place = place_of(report, found.source)
        line = f"{place.file}:{place.line}" if found.source else ""
        cells = [
            f"{_MARKS[found.severity]} {found.severity.label}",
            f"{found.code} {_code(found.rule)}",
            "<br>".join(_code(part) for part in (at, line) if part),
            _text(found.message),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    yield "\n".join(rows)


def _details(report: Report) -> Iterator[str]:
    for found in report.causes:
        symptoms = report.symptoms_of(found)
        body = [*_advice(found), *_explained(symptoms)]
        if body:
            also = f", explains {count(len(symptoms), 'more finding')}" if symptoms else ""
            title = f"{found.code} {_text(found.rule)}: what to do{also}"
            yield _folded(title, body)


def _advice(found: ReportedFinding) -> Iterator[str]:
    if found.help:
        yield _text(found.help)
    facts = [
        f"{_text(key.replace('_', ' '))} {number(value)}"
        for key, value in found.evidence.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if facts:
        yield "Measured: " + " · ".join(facts)
    decades = found.evidence.get("decades")
    if isinstance(decades, dict) and decades:
        shares = (f"{_text(str(k))} {v:+.1f}" for k, v in decades.items() if _is_number(v))
        yield "Decades: " + " · ".join(shares)
    if found.cure is not None:
        yield from _cure(found.cure)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _cure(cure: CureRecord) -> Iterator[str]:
    verified = " — ✓ verified" if cure.verified else ""
    changes = "".join(
        f"; {_text(key.replace('_', ' '))} {_text(number(cure.before[key]))} → "
        f"{_text(number(cure.after[key]))}"
        for key in cure.after
        if key in cure.before
    )
    yield f"Cure: {_text(cure.summary)}{verified}{changes}"
    if cure.code:
        code = clean(cure.code)
        fence = "`" * max(3, 1 + max((len(run) for run in _FENCE.findall(code)), default=2))
        yield f"{fence}python\n{code}\n{fence}"


def _explained(symptoms: Iterable[ReportedFinding]) -> Iterator[str]:
    rows = [
        f"- {_MARKS[f.severity]} {f.code} {_code(f.rule)}: {_text(f.message)}"
        + (f" (because {_text(f.because)})" if f.because else "")
        for f in symptoms
    ]
    if rows:
        yield "Explains:\n\n" + "\n".join(rows)


def _rest(report: Report) -> Iterator[str]:
    body: list[str] = []
    if report.target.assumed:
        rows = (f"- {_text(key)}: {_text(value)}" for key, value in report.target.assumed.items())
        body.append("Assumed:\n\n" + "\n".join(rows))
    if report.suppressed:
        by = Counter(entry.by for entry in report.suppressed)
        body.append("Silenced: " + ", ".join(f"{n} by {_text(who)}" for who, n in by.items()))
    if report.explained:
        body.append(f"Explained away: {count(len(report.explained), 'place')}")
    if report.skipped:
        body.append(f"Nothing to judge for {count(len(report.skipped), 'rule')}")
    body += [_text(notice) for notice in report.notices]
    if body:
        yield _folded("About this report", body)


def _folded(title: str, body: Iterable[str]) -> str:
    return f"<details><summary>{title}</summary>\n\n" + "\n\n".join(body) + "\n\n</details>"


def _text(text: str) -> str:
    """Return `text` on one line, with nothing in it that Markdown or HTML would read."""
    line = " ".join(clean(text).split())
    return _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))


def _code(text: str) -> str:
    """Return `text` as code, also within a table."""
    line = " ".join(clean(text).split())
    if "`" in line or "|" in line:
        return _text(line)
    return f"`{line}`"
