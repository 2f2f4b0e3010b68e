"""GL207 activation-outliers."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.activation_outliers import ActivationOutliers
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, Trace


def layer(facts: dict[str, Any] | None = None, **seen: Any) -> Trace:
    known = {"ratio": 5e3, "largest": 2e3, "units": 64, "large": 1}
    return trace_of(
        modules=[ModuleFacts("fc", "Linear", 1)],
        probes={"unit-sizes": {"fc": {**known, **seen}}},
        **(facts or {}),
    )


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(layer(), True, id="one-of-many"),
        pytest.param(layer(ratio=1e3), False, id="exactly-at-the-limit"),
        pytest.param(layer(ratio=20.0), False, id="as-units-differ"),
        pytest.param(layer(large=7), False, id="more-than-a-few"),
        pytest.param(layer({"pretrained": True}), False, id="learned-elsewhere"),
        pytest.param(layer({"synthesized": True}), False, id="on-a-made-up-batch"),
    ],
)
def test_notes_few_units_far_above_the_rest(trace: Trace, expected: bool) -> None:
    assert bool(findings_of(ActivationOutliers(), trace)) is expected


def test_the_message_counts_them() -> None:
    (found,) = findings_of(ActivationOutliers(), layer())

    assert found.message == "1 of 64 units reach 2e+03, 5e+03 times the median unit (limit 1000)"
    assert found.severity.label == "note"
    assert found.module == "fc"


def test_is_skipped_where_units_were_not_compared() -> None:
    assert judge(trace_of(), [ActivationOutliers()]).skipped == {
        "GL207": "units were not compared after training"
    }
