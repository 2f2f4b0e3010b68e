"""Reports with anything in their words: what every format must survive."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gradlint.finding import Severity
from gradlint.report import Report, failed_report
from gradlint.report_records import (
    CureRecord,
    Failure,
    ReportedFinding,
    SourceRecord,
    Suppressed,
    TargetRecord,
)
from gradlint.rules import all_rules

NASTY = (
    "a\nb", "100 % of\r\nit", "]]>", "a: b, c", "<!-- -->", "& < > \" '", "\x00\x1b[31mred\x07",
    "😀 ‮", "\ud800 alone", "￾￿", "| a | b |", "```", "[0](x)", "{0}", "::error::x",
    "--", "\u2028", "</details>", "\\", "$HOME",
)  # fmt: skip
RULES = [(rule.code, rule.name) for rule in all_rules()]

texts = st.one_of(st.sampled_from(NASTY), st.text(min_size=1, max_size=30))
paths = st.one_of(st.none(), st.sampled_from(("", "fc", "a.b.0")), texts)
severities = st.sampled_from(list(Severity))
sources = st.one_of(
    st.none(),
    st.builds(
        SourceRecord,
        file=st.one_of(st.sampled_from(("model.py", "a b/ü.py", "sub\\m.py")), texts),
        line=st.integers(0, 10**6),
    ),
)


@st.composite
def findings(draw: st.DrawFn) -> tuple[ReportedFinding, ...]:
    """Findings with ids in order, the later ones perhaps symptoms of the first."""
    found: list[ReportedFinding] = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        code, rule = draw(st.sampled_from([*RULES, ("GL999", "of-another-version")]))
        module = draw(paths)
        values: dict[str, Any] = {
            "id": number,
            "code": code,
            "rule": rule,
            "severity": draw(severities),
            "message": draw(texts),
            "help": draw(st.one_of(st.just(""), texts)),
            "module": module,
            "modules": () if module is None else (module,),
            "parameter": draw(st.one_of(st.none(), texts)),
            "source": draw(sources),
            "evidence": {draw(texts): draw(st.floats()), "n": None},
            "cause": 1 if number > 1 and draw(st.booleans()) else None,
        }
        if draw(st.booleans()):
            values["cure"] = CureRecord(summary=draw(texts), code=draw(texts))
        found.append(ReportedFinding(**values))
    if found:
        symptoms = tuple(f.id for f in found if f.cause == 1)
        found[0] = found[0].model_copy(update={"symptoms": symptoms})
    return tuple(found)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """A report of a run, or of one that failed."""
    base = failed_report("x", "E", draw(st.sampled_from((0, 1, 2, 3))), {})
    named = draw(st.booleans())
    return base.model_copy(
        update={
            "target": TargetRecord(
                path=draw(st.one_of(st.none(), texts)),
                object=draw(st.one_of(st.none(), texts)),
                device=draw(st.one_of(st.none(), texts)),
                assumed={draw(texts): draw(texts)},
            ),
            "verdict": draw(st.sampled_from(("healthy", "suspicious", "unhealthy"))),
            "findings": draw(findings()),
            "skipped": {code: draw(texts) for code, _ in RULES[: draw(st.integers(0, 3))]},
            "suppressed": tuple(
                Suppressed(code="GL201", module=draw(paths), by=by, reason=draw(texts))
                for by in draw(st.sampled_from(((), ("comment",), ("baseline", "config"))))
            ),
            "rules": tuple(code for code, _ in RULES[3:9]),
            "notices": tuple(draw(st.lists(texts, max_size=2))),
            "fail_on": draw(st.sampled_from(("error", "warning", "note", "never"))),
            "error": Failure(type=draw(texts), message=draw(texts)) if named else None,
        }
    )
