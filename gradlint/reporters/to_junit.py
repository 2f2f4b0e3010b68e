"""JUnit's XML: a suite for each target, a case for each rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from gradlint.explain import summary
from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import ReportedFinding, Suppressed
from gradlint.reporters.base import Options
from gradlint.reporters.places import clean, failure, module_name, target_name, where
from gradlint.rules import all_rules, find_rule


def render(report: Report, options: Options) -> str:
    """Return `report` as one suite."""
    return render_all([report], options)


def render_all(reports: Sequence[Report], _: Options) -> str:
    """Return a suite for each of `reports`, in one document."""
    root = ET.Element("testsuites", name="gradlint")
    for report in reports:
        root.append(_suite(report))
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _suite(report: Report) -> ET.Element:
    name = clean(target_name(report))
    suite = ET.Element("testsuite", name=name)
    _properties(suite, report)
    if report.error is not None:
        case = _case(suite, name, "target runs")
        kind, text = clean(report.error.type), failure(report)
        ET.SubElement(case, "error", type=kind, message=_line(text)).text = text
    for code in _codes(report):
        found = [f for f in report.findings if f.code == code]
        silent = [entry for entry in report.suppressed if entry.code == code]
        rule = found[0].rule if found else getattr(find_rule(code), "name", "")
        case = _case(suite, name, f"{code} {rule}".strip())
        _fill(case, report, code, found, silent)
    if report.notices:
        ET.SubElement(suite, "system-out").text = clean("\n".join(report.notices))
    suite.set("tests", str(len(suite.findall("testcase"))))
    for key, path in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(len(suite.findall(f"testcase/{path}"))))
    return suite


def _properties(suite: ET.Element, report: Report) -> None:
    pairs = {"verdict": report.verdict, "exit_code": str(report.exit_code)}
    pairs |= {f"assumed {key}": value for key, value in report.target.assumed.items()}
    parent = ET.SubElement(suite, "properties")
    for key, value in pairs.items():
        ET.SubElement(parent, "property", name=clean(key), value=clean(value))


def _case(suite: ET.Element, target: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=target, name=name, time="0")


def _codes(report: Report) -> list[str]:
    """Return the codes of the rules that ran, spoke or were skipped, in order."""
    told = {found.code for found in report.findings} | {e.code for e in report.suppressed}
    codes = {*report.rules, *report.skipped, *told}
    order = {rule.code: i for i, rule in enumerate(all_rules())}
    return sorted(codes, key=lambda code: (order.get(code, len(order)), code))


def _fill(
    case: ET.Element,
    report: Report,
    code: str,
    found: Sequence[ReportedFinding],
    silent: Sequence[Suppressed],
) -> None:
    failing = [f for f in found if _fails(f, report.fail_on)]
    if failing:
        element = ET.SubElement(
            case, "failure", type=failing[0].severity.label, message=_line(failing[0].message)
        )
        element.text = _texts(report, failing)
    elif not found and code in report.skipped:
        ET.SubElement(case, "skipped", message=_line(report.skipped[code]))
    quiet = [f for f in found if f not in failing]
    lines = [_texts(report, quiet)] if quiet else []
    lines += [_silenced(entry) for entry in silent]
    if lines:
        ET.SubElement(case, "system-out").text = "\n".join(lines)


def _fails(found: ReportedFinding, fail_on: str) -> bool:
    return fail_on != "never" and found.severity >= Severity.parse(fail_on)


def _texts(report: Report, findings: Iterable[ReportedFinding]) -> str:
    return "\n\n".join(_text(report, found) for found in findings)


def _text(report: Report, found: ReportedFinding) -> str:
    at = where(found)
    line = f" ({found.source.file}:{found.source.line})" if found.source else ""
    rule = find_rule(found.code)
    parts = [
        f"{found.severity.label}{f' at {at}' if at else ''}{line}: {found.message}",
        f"because {found.because}" if found.because else "",
        f"help: {found.help}" if found.help else "",
        f"flags: {summary(rule)}" if rule is not None else "",
    ]
    parts += [f"explains {f.code} {f.rule}: {f.message}" for f in report.symptoms_of(found)]
    return clean("\n".join(part for part in parts if part))


def _silenced(entry: Suppressed) -> str:
    reason = f": {entry.reason}" if entry.reason else ""
    return clean(f"silenced by {entry.by} at {module_name(entry.module)}{reason}")


def _line(text: str) -> str:
    return " ".join(clean(text).split())
