from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.scale_unknown import ScaleUnknown
from gradlint.testing import findings_of, trace_of
from gradlint.trace import LoopFacts, ScalerFacts


@pytest.mark.parametrize(
    "loop",
    [
        pytest.param(None, id="check"),
        pytest.param(LoopFacts(steps=20), id="no-scaler"),
        pytest.param(LoopFacts(steps=20, scaler=ScalerFacts(65536.0, 65536.0)), id="scaler-seen"),
    ],
)
def test_a_known_scale_is_silent(loop) -> None:
    assert findings_of(ScaleUnknown(), trace_of(loop=loop)) == ()


def test_an_unknown_scale_is_a_warning() -> None:
    (found,) = findings_of(ScaleUnknown(), trace_of(loop=LoopFacts(steps=20, scale_unknown=True)))

    assert found.severity is Severity.WARNING
    assert found.message == (
        "gradients carry an unknown loss scale where the optimizer takes them: their ratios to "
        "weights are withheld"
    )
