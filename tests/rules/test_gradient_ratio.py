"""GL303 gradient-ratio."""

from __future__ import annotations

import pytest

from gradlint.rules.gradient_ratio import GradientRatio
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import OptimizerFacts, ParameterFacts, Trace

SGD = OptimizerFacts("SGD", ({"lr": 0.1},))


def network(
    ratios: list[float],
    *,
    others: tuple[float, ...] = (1e-2, 1e-2, 1e-2),
    update: float = 1e-4,
    shape: tuple[int, ...] = (8, 8),
    optimizer: OptimizerFacts | None = SGD,
) -> Trace:
    """A parameter `p` with these ratios, beside matrices with steady ones."""
    observations = observe("gradient_ratio", "p", ratios, kind="parameter", module="m")
    observations += observe("update_to_weight_ratio", "p", [update] * len(ratios), module="m")
    parameters = [ParameterFacts("p", shape, module="m")]
    for index, ratio in enumerate(others):
        observations += observe("gradient_ratio", f"o{index}", [ratio] * 20, depth=index + 1)
        parameters.append(ParameterFacts(f"o{index}", (8, 8)))
    return trace_of(observations, parameters=parameters, optimizer=optimizer)


def severities(trace: Trace) -> list[str]:
    return [f.severity.label for f in findings_of(GradientRatio(), trace, exemptions=())]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        pytest.param([1e-8] * 20, ["note"], id="well-below"),
        pytest.param([1e3] * 20, ["note"], id="well-above"),
        pytest.param([1e-3 / 100] * 20, [], id="exactly-at-the-lower-limit"),
        pytest.param([0.1 * 100] * 20, [], id="exactly-at-the-upper-limit"),
        pytest.param([1e-4] * 20, [], id="outside-the-band-only"),
        pytest.param([1e-8] * 9, [], id="too-few-steps"),
        pytest.param([1e-8] * 18 + [1e-2] * 2, ["note"], id="on-nine-of-ten-steps"),
        pytest.param([1e-8] * 17 + [1e-2] * 3, [], id="on-fewer-steps"),
        pytest.param([1e-2] * 19 + [1e-9], [], id="single-outlier"),
        pytest.param([float("nan")] * 20, [], id="zero-weight"),
        pytest.param([], [], id="nothing-to-see"),
    ],
)
def test_a_ratio_far_outside_the_band_for_long_is_noted(
    ratios: list[float], expected: list[str]
) -> None:
    assert severities(network(ratios)) == expected


@pytest.mark.parametrize(
    ("ratio", "update", "expected"),
    [
        pytest.param(1e-8, 1e-9, "warning", id="stands-still"),
        pytest.param(1e-8, 1e-7, "note", id="at-the-limit-of-standing-still"),
        pytest.param(1e3, 0.5, "warning", id="jumps"),
        pytest.param(1e3, 0.1, "note", id="at-the-limit-of-jumping"),
    ],
)
def test_it_is_a_warning_where_the_true_update_agrees(
    ratio: float, update: float, expected: str
) -> None:
    assert severities(network([ratio] * 20, update=update)) == [expected]


def test_most_other_layers_must_be_inside_the_band() -> None:
    assert severities(network([1e-8] * 20, others=(1e-2, 1e-2, 1e-4, 1e-4))) == ["note"]
    assert severities(network([1e-8] * 20, others=(1e-2, 1e-4, 1e-4))) == []
    assert severities(network([1e-8] * 20, others=())) == []


def test_vectors_are_judged_below_the_band_only_and_never_warned_of() -> None:
    assert severities(network([1e-8] * 20, shape=(8,), update=0.0)) == ["note"]
    assert severities(network([1e4] * 20, shape=(8,), update=1.0)) == []


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        pytest.param(None, "no optimizer was given", id="none"),
        pytest.param(OptimizerFacts("SGD", probe=True), "no optimizer was given", id="probe"),
        pytest.param(
            OptimizerFacts("AdamW"),
            "AdamW divides the gradient's scale out: see GL401 and GL402",
            id="adam",
        ),
        pytest.param(SGD, None, id="sgd"),
    ],
)
def test_the_rule_is_silent_where_the_scale_does_not_matter(
    optimizer: OptimizerFacts | None, reason: str | None
) -> None:
    assert GradientRatio().skip_reason(network([1e-8] * 20, optimizer=optimizer)) == reason


def test_the_message_shows_ratio_band_and_update() -> None:
    (found,) = findings_of(GradientRatio(), network([3.6e-8] * 20, update=1.6e-9), exemptions=())

    assert found.message == (
        "gradient is 3.6e-08 of p (band 1e-03 to 1e-01), 3 of 3 other weights are inside, the "
        "update is 1.6e-09 of the weight a step"
    )
    assert found.parameter == "p"
    assert found.module == "m"
