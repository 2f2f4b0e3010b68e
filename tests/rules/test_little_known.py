"""What every rule says of runs of which little is known: nothing, and it does not fail."""

from __future__ import annotations

import pytest

from gradlint.rules import Rule, all_rules
from gradlint.testing import observe, trace_of
from gradlint.trace import Trace

PROBED = {"batch-leakage", "future-leakage", "input-ignored"}
"""Rules that are skipped without their probe: tested in their own files."""

every_rule = pytest.mark.parametrize(
    "rule", [r for r in all_rules() if r.name not in PROBED], ids=lambda rule: rule.name
)


def measured(rule: type[Rule]) -> Trace:
    """All that `rule` reads was measured, at every kind of place, and nothing else is known."""
    return trace_of(
        *(
            observe(metric, path, [1.0] * 41, start=0, kind=kind, module="0" if path else "")
            for metric in {*rule.metrics, "loss", "learning_rate"}
            for path, kind in (("", "model"), ("0", "Linear"), ("0.weight", "parameter"))
        )
    )


@every_rule
def test_a_run_that_showed_nothing_is_silent(rule: type[Rule]) -> None:
    assert list(rule().check(trace_of())) == []


@every_rule
def test_measurements_of_an_unknown_model_raise_nothing(rule: type[Rule]) -> None:
    found = list(rule().check(measured(rule)))

    assert all(f.code == rule.code for f in found)
