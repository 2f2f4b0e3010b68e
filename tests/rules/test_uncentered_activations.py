"""GL203 uncentered-activations."""

from __future__ import annotations

import pytest

from gradlint.graph import Operation
from gradlint.rules.uncentered_activations import UncenteredActivations
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Trace


def stack(*ratios: float, step: int = 0, kind: str = "sigmoid") -> Trace:
    """Hidden activations with these ratios of mean to standard deviation, then a layer."""
    operations: list[Operation] = []
    observations = []
    for index, ratio in enumerate(ratios):
        site = f"a{index}"
        previous = (index - 1,) if index else ()
        operations.append(Operation(index, kind, kind, site, inputs=previous, site=site))
        observations += observe("activation_mean", site, [-ratio * 0.1] * 3, step=step)
        observations += observe("activation_std", site, [0.1] * 3, step=step)
    count = len(ratios)
    operations.append(Operation(count, "linear", "linear", inputs=(count - 1,)))
    return trace_of(observations, operations=operations)


@pytest.mark.parametrize(
    ("ratios", "flagged"),
    [
        pytest.param([50.0] * 4, True, id="well-over"),
        pytest.param([10.0] * 4, False, id="exactly-at-the-limit"),
        pytest.param([50.0, 50.0, 1.0, 1.0], False, id="exactly-half-of-the-layers"),
        pytest.param([50.0, 50.0, 50.0, 1.0], True, id="most-of-the-layers"),
        pytest.param([500.0, 1.0, 1.0, 1.0], False, id="single-outlier"),
        pytest.param([50.0, 50.0], False, id="too-few-layers"),
        pytest.param([7.0] * 4, False, id="plain-sigmoid-network"),
        pytest.param([], False, id="nothing-to-see"),
    ],
)
def test_notes_networks_most_of_whose_layers_are_nearly_constant(
    ratios: list[float], flagged: bool
) -> None:
    found = findings_of(UncenteredActivations(), stack(*ratios), exemptions=())

    assert bool(found) is flagged


def test_only_the_initialization_is_judged() -> None:
    assert not findings_of(UncenteredActivations(), stack(50, 50, 50, step=7), exemptions=())


def test_operations_other_than_activations_do_not_count() -> None:
    assert not findings_of(UncenteredActivations(), stack(50, 50, 50, kind="linear"), exemptions=())


def test_the_message_counts_layers() -> None:
    (found,) = findings_of(UncenteredActivations(), stack(50, 20, 30, 1), exemptions=())

    assert found.message == (
        "the mean is up to 50 times the standard deviation, and more than 10 times in 3 of 4 "
        "hidden activations"
    )
    assert found.severity.label == "note"
    assert found.modules == ("a0", "a1", "a2")
