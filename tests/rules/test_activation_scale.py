"""GL204 activation-scale."""

from __future__ import annotations

import pytest

from gradlint.graph import Operation
from gradlint.rules.activation_scale import ActivationScale
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Facts, Trace


def stack(*stds: float, step: int = 0) -> Trace:
    operations: list[Operation] = []
    observations = []
    for index, std in enumerate(stds):
        site = f"a{index}"
        previous = (index - 1,) if index else ()
        operations.append(Operation(index, "relu", "relu", site, inputs=previous, site=site))
        observations += observe("activation_std", site, [std] * 3, kind="ReLU", step=step)
    count = len(stds)
    operations.append(Operation(count, "linear", "linear", inputs=(count - 1,)))
    return trace_of(observations, operations=operations)


@pytest.mark.parametrize(
    ("stds", "flagged"),
    [
        pytest.param([500.0] * 4, True, id="far-too-large"),
        pytest.param([1e-4] * 4, True, id="far-too-small"),
        pytest.param([100.0] * 4, False, id="exactly-at-the-upper-limit"),
        pytest.param([0.01] * 4, False, id="exactly-at-the-lower-limit"),
        pytest.param([500.0, 500.0, 1.0, 1.0], False, id="exactly-half-of-the-layers"),
        pytest.param([1e9, 1.0, 1.0], False, id="single-outlier"),
        pytest.param([500.0, 500.0], False, id="too-few-layers"),
        pytest.param([0.04, 0.1, 0.3, 3.0], False, id="healthy"),
        pytest.param([], False, id="nothing-to-see"),
    ],
)
def test_notes_networks_most_of_whose_layers_are_far_from_unit_scale(
    stds: list[float], flagged: bool
) -> None:
    assert bool(findings_of(ActivationScale(), stack(*stds), exemptions=())) is flagged


def test_only_the_initialization_is_judged() -> None:
    assert not findings_of(ActivationScale(), stack(500, 500, 500, step=3), exemptions=())


def test_loaded_weights_are_not_judged() -> None:
    trace = stack(500, 500, 500).but(facts=Facts(pretrained=True))

    assert ActivationScale().skip_reason(trace) == "weights were loaded or trained before"


def test_the_message_names_the_range() -> None:
    (found,) = findings_of(ActivationScale(), stack(1.0, 150, 2000, 300), exemptions=())

    assert found.message == (
        "standard deviations from 1.5e+02 to 2e+03 at step 0, outside 0.01 to 100 in 3 of 4 "
        "hidden activations"
    )
    assert found.module == "a1"
    assert found.severity.label == "note"
