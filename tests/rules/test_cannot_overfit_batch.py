from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.causes import link
from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.cannot_overfit_batch import CannotOverfitBatch
from gradlint.rules.loss_not_decreasing import LossNotDecreasing
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Trace

SEEN = {
    "constant": 2.234,
    "model": 2.179,
    "plain": 0.0021,
    "share": 0.0246,
    "signal": 0.853,
    "errors": 30.2,
    "samples": 128,
    "known": 256,
    "steps": 200,
    "rates": [1e-3, 1e-2, 1e-4],
}


def fitted(**changes: Any) -> Trace:
    return trace_of(probes={"batch-fit": {**SEEN, **changes}})


def test_a_model_that_stays_at_the_constant_is_a_warning() -> None:
    (found,) = findings_of(CannotOverfitBatch(), fitted())

    assert found.severity is Severity.WARNING
    assert found.message == (
        "at none of 3 learning rates does the model fit 128 samples in 200 steps: its loss stays "
        "at 2.2, 2.5 % of the way from the best constant prediction's 2.2 to the 0.0021 of a "
        "plain two-layer network, whose loss on samples left out is 85 % below the constant's"
    )
    assert found.evidence["share"] == 0.0246
    assert found.evidence["limit"] == 0.1
    assert found.evidence["signal"] == 0.853


@pytest.mark.parametrize(("share", "flagged"), [(0.0, True), (0.099, True), (0.1, False)])
def test_a_tenth_of_the_way_is_enough(share: float, flagged: bool) -> None:
    assert bool(findings_of(CannotOverfitBatch(), fitted(share=share))) is flagged


def test_the_limit_is_an_option() -> None:
    assert findings_of(CannotOverfitBatch(max_share=0.02), fitted()) == ()


def test_where_nothing_was_fitted_it_is_skipped() -> None:
    assert findings_of(CannotOverfitBatch(), trace_of()) == ()
    assert CannotOverfitBatch().skip_reason(trace_of()) == (
        "no batch was fitted: the loss fell, or the data are none that is judged"
    )
    assert CannotOverfitBatch().skip_reason(fitted()) is None


def other(code: str, severity: Severity = Severity.WARNING, step: int | None = None) -> Finding:
    return Finding(
        code=code, rule="other", severity=severity, message="", stage=Stage.PROGRESS, step=step
    )


@pytest.mark.parametrize("code", ["GL206", "GL301", "GL201", "GL601", "GL608", "GL102", "GL112"])
def test_what_explains_it_is_its_cause(code: str) -> None:
    (found,) = findings_of(CannotOverfitBatch(), fitted())

    first, second = link([found, other(code)])

    assert (first.finding.code, second.finding.code) == (code, "GL611")
    assert second.cause == 0


@pytest.mark.parametrize("code", ["GL609", "GL610"])
def test_it_explains_a_loss_that_stays(code: str) -> None:
    (found,) = findings_of(CannotOverfitBatch(), fitted())

    first, second = link([other(code, Severity.NOTE), found])

    assert (first.finding.code, second.finding.code) == ("GL611", code)
    assert second.cause == 0
    assert LossNotDecreasing.code == "GL609"


@pytest.mark.parametrize("code", ["GL401", "GL402", "GL408", "GL412", "GL403", "GL703", "GL704"])
def test_optimizers_do_not_explain_it(code: str) -> None:
    (found,) = findings_of(CannotOverfitBatch(), fitted())

    assert all(item.cause is None for item in link([found, other(code, step=1)]))
