"""GL304 gradient-distribution."""

from __future__ import annotations

import pytest

from gradlint.graph import Operation
from gradlint.rules.gradient_distribution import GradientDistribution
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ParameterFacts, Trace


def weight(
    *,
    zeros: list[float] | None = None,
    kurtosis: list[float] | None = None,
    tail: float = 0.001,
    shape: tuple[int, ...] = (64, 64),
    first: bool = False,
) -> Trace:
    operations = [
        Operation(0, "linear", "linear", parameters=("w",) if first else ()),
        Operation(1, "linear", "linear", inputs=(0,), parameters=() if first else ("w",)),
    ]
    return trace_of(
        observe("gradient_zero_share", "w", zeros or [], module="m"),
        observe("gradient_kurtosis", "w", kurtosis or [], module="m"),
        observe("gradient_tail_share", "w", [tail] * len(kurtosis or []), module="m"),
        operations=operations,
        parameters=[ParameterFacts("w", shape, module="m")],
    )


def flagged(trace: Trace) -> bool:
    return bool(findings_of(GradientDistribution(), trace, exemptions=()))


@pytest.mark.parametrize(
    ("zeros", "expected"),
    [
        pytest.param([0.97] * 10, True, id="mostly-zero"),
        pytest.param([0.9] * 10, False, id="exactly-at-the-limit"),
        pytest.param([0.97] * 9, False, id="too-few-steps"),
        pytest.param([1.0] * 10, False, id="all-zero-is-for-other-rules"),
        pytest.param([0.1] * 9 + [0.99], False, id="single-outlier"),
        pytest.param([], False, id="nothing-to-see"),
    ],
)
def test_a_mass_of_exact_zeros_is_noted(zeros: list[float], expected: bool) -> None:
    assert flagged(weight(zeros=zeros)) is expected


@pytest.mark.parametrize(
    ("kurtosis", "expected"),
    [
        pytest.param([3000.0] * 10, True, id="heavy-tails"),
        pytest.param([1000.0] * 10, False, id="exactly-at-the-limit"),
        pytest.param([3000.0] * 9, False, id="too-few-steps"),
        pytest.param([30.0] * 9 + [1e5], False, id="single-outlier"),
        pytest.param([3000.0] * 9 + [float("nan")], False, id="constant-gradient"),
    ],
)
def test_extreme_tails_are_noted(kurtosis: list[float], expected: bool) -> None:
    assert flagged(weight(kurtosis=kurtosis)) is expected


def test_tails_need_entries_far_out() -> None:
    assert not flagged(weight(kurtosis=[3000.0] * 10, tail=0.0))


def test_zeros_of_the_data_are_zeros_of_the_first_layer() -> None:
    assert not flagged(weight(zeros=[0.97] * 10, first=True))


def test_vectors_are_not_judged() -> None:
    assert not flagged(weight(zeros=[0.97] * 10, shape=(64,)))


def test_the_message_names_the_share_of_zeros() -> None:
    (found,) = findings_of(GradientDistribution(), weight(zeros=[0.97] * 10), exemptions=())

    assert found.message == (
        "97% of the gradient of w is exactly zero on the median of 10 steps (limit 90%)"
    )
    assert found.severity.label == "note"


def test_the_message_names_the_kurtosis() -> None:
    (found,) = findings_of(GradientDistribution(), weight(kurtosis=[3000.0] * 10), exemptions=())

    assert found.message == (
        "gradient of w has kurtosis 3e+03 on the median of 10 steps (limit 1e+03, a bell curve "
        "has 3), 0.10% of it beyond six standard deviations"
    )
