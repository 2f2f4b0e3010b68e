"""Judge: rules over a trace, exemptions, source lines; several seeds made one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from gradlint.diagnosis.exemptions import Exemption
from gradlint.diagnosis.judge import Judgement, combine, judge, with_source
from gradlint.errors import ConfigError, RuleError
from gradlint.finding import Finding, Severity, Source
from gradlint.rules.base import Rule
from gradlint.testing import observe, trace_of
from gradlint.trace import ModuleFacts, Trace


@dataclass(frozen=True)
class Loud(Rule):
    """Flags every place with a value above one."""

    code: ClassVar = "GL990"
    name: ClassVar = "loud"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("volume",)

    def check(self, trace: Trace) -> Iterator[Finding]:
        for site in trace.of("volume").sites:
            if trace.of("volume").at(site).last > 1:
                yield self.finding(site, "loud")


@dataclass(frozen=True)
class Raises(Loud):
    """Fails."""

    problem: Exception = ZeroDivisionError("nothing to divide by")  # noqa: RUF009

    def check(self, trace: Trace) -> Iterator[Finding]:
        raise self.problem


VOLUMES = trace_of(
    observe("volume", "a", [2.0], depth=0),
    observe("volume", "b", [3.0], depth=1),
    observe("volume", "c", [0.5], depth=2),
)


def test_places_of_one_rule_become_one_finding() -> None:
    result = judge(VOLUMES, [Loud()], [])

    assert [f.modules for f in result.findings] == [("a", "b")]
    assert result.rules_run == ("GL990",)


def test_an_exemption_explains_one_place_and_leaves_the_other() -> None:
    quiet = Exemption("meant", frozenset({"GL990"}), lambda t, f: "meant" if f.depth == 0 else None)

    result = judge(VOLUMES, [Loud()], [quiet])

    assert [f.module for f in result.findings] == ["b"]
    assert [(e.code, e.module, e.because, e.name) for e in result.explained] == [
        ("GL990", "a", "meant", "meant")
    ]


def test_an_exemption_of_another_code_explains_nothing() -> None:
    other = Exemption("meant", frozenset({"GL991"}), lambda t, f: "meant")

    assert judge(VOLUMES, [Loud()], [other]).findings[0].modules == ("a", "b")


def test_the_first_exemption_that_holds_is_the_one_shown() -> None:
    ways = [
        Exemption(name, frozenset({"GL990"}), lambda t, f, say=name: say)  # type: ignore[misc]
        for name in ("first", "second")
    ]

    assert {e.because for e in judge(VOLUMES, [Loud()], ways).explained} == {"first"}


def test_a_rule_without_its_metrics_is_skipped_with_a_reason() -> None:
    result = judge(trace_of(), [Loud()], [])

    assert result.skipped == {"GL990": "not observed: volume"}
    assert result.rules_run == ()


def test_a_rule_that_raises_is_named() -> None:
    with pytest.raises(RuleError, match=r"rule GL990 \(loud\) failed: .*nothing to divide by"):
        judge(VOLUMES, [Raises()], [])


def test_errors_of_gradlints_own_pass_through() -> None:
    with pytest.raises(ConfigError):
        judge(VOLUMES, [Raises(problem=ConfigError("unknown key"))], [])


def test_a_finding_gets_the_line_of_the_nearest_module_that_has_one() -> None:
    line = Source("model.py", 12)
    trace = trace_of(
        observe("volume", "body.0.act", [2.0]),
        modules=[ModuleFacts("body", "Body", source=line), ModuleFacts("body.0.act", "ReLU")],
    )

    assert judge(trace, [Loud()], []).findings[0].source == line


def said(code: str, severity: Severity = Severity.ERROR, *, exact: bool = False) -> Finding:
    return Finding(code=code, rule=code.lower(), severity=severity, message=code, exact=exact)


def seeds(*runs: tuple[Finding, ...]) -> Judgement:
    return combine([Judgement(run) for run in runs])


def test_one_seed_is_taken_as_it_is() -> None:
    run = Judgement((said("GL301"),), skipped={"GL403": "no clipping"}, rules_run=("GL301",))

    assert combine([run]) == run


@pytest.mark.parametrize(
    ("returned", "severity"),
    [(0, Severity.WARNING), (1, Severity.ERROR), (2, Severity.ERROR)],
)
def test_an_error_stands_if_it_returns_in_a_majority_of_three_seeds(
    returned: int, severity: Severity
) -> None:
    others = [(said("GL301"),)] * returned + [()] * (2 - returned)

    assert seeds((said("GL301"),), *others).findings[0].severity is severity


def test_half_of_the_seeds_is_no_majority() -> None:
    found = seeds((said("GL301"),), ()).findings[0]

    assert found.severity is Severity.WARNING
    assert found.message == "GL301 (in 1 of 2 seeds)"


def test_exact_facts_stand_whatever_the_other_seeds_say() -> None:
    fact = said("GL601", exact=True)

    assert seeds((fact,), (), ()).findings == (fact,)


def test_warnings_and_notes_of_the_first_seed_stay_as_they_are() -> None:
    first = (said("GL203", Severity.NOTE), said("GL606", Severity.WARNING))

    assert seeds(first, (), ()).findings == first


def test_what_two_other_seeds_show_is_added_once_as_a_warning() -> None:
    found = seeds((), (said("GL201"),), (said("GL201"),)).findings

    assert [(f.code, f.severity, f.message) for f in found] == [
        ("GL201", Severity.WARNING, "GL201 (in 2 of 3 seeds)")
    ]


def test_what_one_other_seed_shows_is_left_out_unless_it_is_exact() -> None:
    fact = said("GL501", exact=True)

    assert seeds((), (said("GL201"), fact), ()).findings == (fact,)


def test_a_rule_that_speaks_twice_in_a_seed_counts_once() -> None:
    pair = (said("GL201"), said("GL201", Severity.WARNING))

    assert seeds((), pair, ()).findings == ()
    assert len(seeds(pair, (), ()).findings) == 2


def test_skipped_and_explained_are_those_of_the_first_seed() -> None:
    first = Judgement((), skipped={"GL403": "no clipping"}, rules_run=("GL101",))

    assert combine([first, Judgement((said("GL201"),)), Judgement()]) == first


def test_a_finding_on_a_function_points_to_its_call_and_any_other_to_its_module() -> None:
    module, call = Source("m.py", 3), Source("m.py", 9)
    facts = ModuleFacts("", "Net", source=module, functions={"softmax": call})
    trace = trace_of(modules=[facts])

    softmax, relu = (said("GL601").but(module="", evidence={"on": k}) for k in ("softmax", "relu"))
    assert with_source(trace, softmax).source == call
    assert with_source(trace, relu).source == module
    assert with_source(trace, softmax.but(module=None)).source == call
    assert with_source(trace, relu.but(module=None)).source is None
