"""SARIF 2.1.0, with what GitHub's code scanning asks for beyond the standard."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from gradlint._version import __version__
from gradlint.explain import page, summary
from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import ReportedFinding, SourceRecord, Suppressed
from gradlint.reporters.base import Options
from gradlint.reporters.places import (
    Fingerprints,
    clean,
    failure,
    module_name,
    place_of,
    target_name,
    told,
)
from gradlint.rules import Rule, all_rules

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LONGEST = 1000
"""Characters of a rule's description; GitHub shows at most 1,024."""

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[(?=[^\]]*\]\()")


def render(report: Report, options: Options) -> str:
    """Return `report` as a SARIF log of one run."""
    return render_all([report], options)


def render_all(reports: Sequence[Report], _: Options) -> str:
    """Return `reports` as one run: a service takes one run of a tool from one upload."""
    rules = all_rules()
    index = {rule.code: i for i, rule in enumerate(rules)}
    names = Fingerprints()
    run = {
        "tool": {
            "driver": {
                "name": "gradlint",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "invocations": [_invocation(report) for report in reports],
        "originalUriBaseIds": {
            "%SRCROOT%": {"description": {"text": "The folder that gradlint was called in."}}
        },
        "columnKind": "unicodeCodePoints",
        "results": [result for report in reports for result in _results(report, names, index)],
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2) + "\n"


def _rule(rule: type[Rule]) -> dict[str, Any]:
    problem = {Severity.ERROR: "error", Severity.WARNING: "warning"}
    markdown = page(rule)
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": summary(rule).replace("`", "")},
        "fullDescription": {"text": _description(rule)},
        "help": {
            "text": f"{rule.help}\n\n`gradlint explain {rule.code}` says more.".lstrip(),
            "markdown": markdown,
        },
        "defaultConfiguration": {"level": rule.severity.label},
        "properties": {
            "tags": ["gradients", "pytorch", rule.stage.name.lower()],
            "precision": "very-high" if rule.exact else "high",
            "problem.severity": problem.get(rule.severity, "recommendation"),
        },
    }


def _description(rule: type[Rule]) -> str:
    """Return what the rule does and why that is bad, without Markdown's line breaks."""
    text = inspect.cleandoc(rule.__doc__ or "")
    parts = _HEADING.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    wanted = (sections.get("What it does", ""), sections.get("Why is this bad?", ""))
    joined = " ".join(" ".join(wanted).replace("`", "").split()) or summary(rule)
    return joined if len(joined) <= LONGEST else joined[: LONGEST - 1].rstrip() + "…"


def _invocation(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {
        "executionSuccessful": report.error is None and report.verdict != "not-observed",
        "exitCode": report.exit_code,
        "properties": {"target": clean(target_name(report)), "verdict": report.verdict},
    }
    notes = [_notification("error", failure(report))] if report.error is not None else []
    notes += [_notification("note", clean(notice)) for notice in report.notices]
    if notes:
        found["toolExecutionNotifications"] = notes
    return found


def _notification(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": text}}


def _results(
    report: Report, names: Fingerprints, index: dict[str, int]
) -> Iterator[dict[str, Any]]:
    for found in report.findings:
        result = _result(report, found, names, index)
        result |= {"level": found.severity.label, "message": {"text": _message(told(found))}}
        related = [
            _related(report, number, other)
            for number, other in enumerate(report.symptoms_of(found), start=1)
        ]
        if related:
            result["relatedLocations"] = related
        properties: dict[str, Any] = {"modules": [clean(path) for path in found.modules]}
        if found.because:
            properties["because"] = clean(found.because)
        yield result | {"properties": properties}
    for entry in report.suppressed:
        result = _result(report, entry, names, index)
        level = {} if entry.severity is None else {"level": entry.severity.label}
        text = entry.message or f"{entry.code} at {module_name(entry.module)}, not to be shown"
        yield (
            result
            | level
            | {
                "message": {"text": _message(clean(text))},
                "suppressions": [
                    {
                        "kind": "inSource" if entry.by == "comment" else "external",
                        "justification": clean(entry.reason or f"by {entry.by}"),
                    }
                ],
            }
        )


def _result(
    report: Report,
    found: ReportedFinding | Suppressed,
    names: Fingerprints,
    index: dict[str, int],
) -> dict[str, Any]:
    name = names.of(report, found)
    result: dict[str, Any] = {"ruleId": found.code}
    if found.code in index:
        result["ruleIndex"] = index[found.code]
    location = _location(report, found.source) | {"logicalLocations": [_logical(found)]}
    return result | {
        "locations": [location],
        # GitHub tells alerts apart by the first, which would else follow the text of a line
        "partialFingerprints": {
            "primaryLocationLineHash": f"{name}:1",
            "gradlint/ruleAndModule/v1": name,
        },
    }


def _message(text: str) -> str:
    """Return `text` with brackets escaped that would else be read as a link."""
    return _LINK.sub(r"\\[", text)


def _location(report: Report, source: SourceRecord | None) -> dict[str, Any]:
    place = place_of(report, source)
    return {
        "physicalLocation": {
            "artifactLocation": _artifact(place.file),
            "region": {"startLine": place.line},
        }
    }


def _artifact(file: str) -> dict[str, str]:
    encoded = quote(file.encode("utf-8", "backslashreplace"), safe="/")
    if file.startswith("/"):
        return {"uri": f"file://{encoded}"}
    if re.match(r"[A-Za-z]:/", file):
        return {"uri": f"file:///{encoded}"}
    return {"uri": encoded, "uriBaseId": "%SRCROOT%"}


def _logical(found: ReportedFinding | Suppressed) -> dict[str, str]:
    path = clean(found.parameter or module_name(found.module))
    return {
        "name": path.rpartition(".")[2],
        "fullyQualifiedName": path,
        "kind": "member" if found.parameter else "module",
    }


def _related(report: Report, number: int, found: ReportedFinding) -> dict[str, Any]:
    text = clean(f"explains {found.code} {found.rule}: {found.message}")
    return {
        "id": number,
        "message": {"text": _message(text)},
        **_location(report, found.source),
        "logicalLocations": [_logical(found)],
    }
