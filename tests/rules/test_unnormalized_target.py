from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.rules.unnormalized_target import UnnormalizedTarget
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import LossFacts, TensorFacts, Trace


def trace(
    target: float,
    output: float,
    *,
    kind: str = "mse",
    losses: tuple[float, ...] = (),
    **facts: object,
) -> Trace:
    loss = LossFacts(
        kind,
        output=TensorFacts("output", (64, 1), "float32", std=output),
        target=TensorFacts("target", (64, 1), "float32", std=target),
        operation=1,
    )
    observed = (
        observe("loss", "", losses[:1] * 3, kind="model", step=0),
        observe("loss", "", losses[1:], kind="model"),
    )
    return trace_of(*observed, losses=(loss,), operations=chain("linear", "mse"), **facts)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(2e5, 0.1), True, id="prices"),
        pytest.param(trace(10.0, 0.01), False, id="exactly-at-the-scale"),
        pytest.param(trace(100.0, 1.0), False, id="exactly-at-the-ratio"),
        pytest.param(trace(101.0, 1.0), True, id="just-over-both"),
        pytest.param(trace(2.0, 0.0), False, id="zero-initialized-head"),
        pytest.param(trace(1e-6, 0.1), True, id="tiny"),
        pytest.param(trace(0.0, 0.1), False, id="targets-of-zero"),
        pytest.param(trace(1.0, 0.3), False, id="standardized"),
        pytest.param(trace(2e5, 0.1, kind="cross_entropy"), False, id="no-regression"),
        pytest.param(trace(2e5, 0.1, synthesized=True), False, id="made-up"),
        pytest.param(trace_of(), False, id="nothing"),
    ],
)
def test_targets_far_from_the_output_are_a_warning(observed, flagged) -> None:
    found = findings_of(UnnormalizedTarget(), observed)

    assert [f.severity for f in found] == ([Severity.WARNING] if flagged else [])


def test_progress_silences_it() -> None:
    falling = trace(2e5, 0.1, losses=(4e10, *[4e10 - i * 1e9 for i in range(30)]))
    staying = trace(2e5, 0.1, losses=(4e10, *[4e10 - i * 1e6 for i in range(30)]))

    assert findings_of(UnnormalizedTarget(), falling) == ()
    assert len(findings_of(UnnormalizedTarget(), staying)) == 1


def test_the_message_names_both_scales() -> None:
    (found,) = findings_of(UnnormalizedTarget(), trace(2e5, 0.1))

    assert found.message == (
        "the targets' root mean square is 2e+05, the output's 0.1 at initialization (limit a "
        "factor of 100)"
    )
    assert found.module == "0"


def test_without_a_regression_there_is_nothing_to_judge() -> None:
    classified = trace(2e5, 0.1, kind="cross_entropy")

    assert UnnormalizedTarget().skip_reason(classified) == "no regression loss was seen"


@pytest.mark.parametrize(
    "changes",
    [{"kind": "bce"}, {"target": None}, {"output": None}],
    ids=["no-regression", "targets-unknown", "output-unknown"],
)
def test_other_losses_beside_a_good_one_are_silent(changes: dict[str, Any]) -> None:
    (loss,) = trace(2e5, 0.1).facts.losses
    (good,) = trace(1.0, 0.3).facts.losses

    both = trace_of(losses=(good, replace(loss, **changes)))

    assert findings_of(UnnormalizedTarget(), both) == ()
