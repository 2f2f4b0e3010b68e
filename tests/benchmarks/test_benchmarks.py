"""The benchmark runs; what it measures is not asserted here."""

from __future__ import annotations

import pytest

from tests.benchmarks.__main__ import table
from tests.benchmarks.measuring import interval, measure
from tests.benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("workload", [WORKLOADS[0], WORKLOADS[-1]], ids=lambda w: w.name)
def test_the_benchmark_measures_every_variant(
    workload: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.measuring.wandb_or_none", lambda: None)

    result = measure(workload, block=2, blocks=3, first=5)  # type: ignore[arg-type]

    assert [cost.variant for cost in result.costs] == [
        "bare", "bare again", "gradlint", "gradlint every=1", "hooks with .item()",
    ]  # fmt: skip
    watched = {cost.variant: cost for cost in result.costs if cost.own is not None}
    assert watched["gradlint every=1"].looked_at == 5 + 3 * 2
    assert all(cost.held for cost in watched.values())
    assert len(table([result]).splitlines()) == 2 + 4


def test_an_interval_holds_its_median() -> None:
    assert interval([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 1.0, 5.0)
    assert interval([1.0]) == (1.0, 1.0, 1.0)
