"""A tenth of the calibration bench, the same each time: every tenth case of each part and group."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.calibration.__main__ import LEARNED
from tests.calibration.case import Case
from tests.calibration.known import MOVED, SKIPPED, WHY
from tests.calibration.recipes import every, sealed, tenth
from tests.calibration.run_one import MODES, run_one
from tests.calibration.table import judgements, wilson

CHOSEN = [
    pytest.param(case, mode, id=f"{case.name}-{mode}")
    for case in tenth(every())
    for mode in MODES
    if not (case.in_loop and mode == "check")
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "mode"), CHOSEN)
def test_a_case_is_judged_as_it_was_written_down(case: Case, mode: str) -> None:
    record = run_one(case, 0, mode)

    assert "error" not in record, record
    (judged, *_) = judgements([case], [record])
    assert judged.right or case.why, judged.findings
    if case.group == "healthy" and mode == "run":
        assert record["fall"] > LEARNED


def test_the_bench_is_as_large_and_as_varied_as_it_says() -> None:
    cases = every()
    counts = Counter(case.group for case in cases)
    names = {case.name for case in cases}

    assert len(names) == len(cases)
    assert counts["healthy"] >= 120
    assert counts["sick"] >= 60
    assert counts["mixture"] >= 10
    assert len({case.fault for case in cases if case.group == "sick"}) >= 30
    assert all(case.causes for case in cases if case.group != "healthy")
    assert all(len(case.causes) == 2 for case in cases if case.group == "mixture")


def test_the_sealed_part_is_large_without_what_taught_a_rule() -> None:
    counts = Counter(case.group for case in sealed() if case.part == "sealed")

    assert counts["healthy"] >= 60
    assert counts["sick"] >= 40


def test_notes_on_cases_are_notes_on_cases_that_exist() -> None:
    names = {case.name for case in every()}

    assert names >= WHY.keys()
    assert {case.name for case in sealed()} >= MOVED
    assert not names & SKIPPED


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(0, 75)

    assert low == 0.0
    assert high == pytest.approx(0.0487, abs=1e-3)
