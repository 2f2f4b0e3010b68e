"""GL302 exploding-gradient."""

from __future__ import annotations

import math

import pytest

from gradlint.rules.exploding_gradient import ExplodingGradient
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Flow, Site, Trace


def flows(*decades: float, step: int = 0) -> list[Flow]:
    """The flows of one backward: the decades won up to each layer, the first layer first."""
    return [
        Flow(
            step,
            Site(f"l{i}", "Linear", i, f"l{i}"),
            {"weights": 1.25 * value, "ReLU": -0.25 * value, "structural": -1.5},
            {"l0": 0.5, "l1": 0.7, "a": -0.1} if i == 0 else {},
        )
        for i, value in enumerate(decades)
    ]


def geometric(total: float, *, step: int = 0) -> list[Flow]:
    """Ten layers that win the same factor each, `total` decades from the last to the first."""
    return flows(*(total * (9 - i) / 9 for i in range(10)), step=step)


def run(initial: float, later: float | None = None) -> Trace:
    found = [f for _ in range(3) for f in geometric(initial)]
    if later is not None:
        for step in (1, 2, 3, 20, 30, 40):
            found += geometric(initial if step <= 3 else later, step=step)
    return trace_of(flows=tuple(found))


def severities(trace: Trace) -> list[str]:
    return [f.severity.label for f in findings_of(ExplodingGradient(), trace, exemptions=())]


@pytest.mark.parametrize(
    ("initial", "later", "expected"),
    [
        pytest.param(9.0, 9.0, ["error"], id="well-over"),
        pytest.param(9.0, None, ["error"], id="ended-before-it-trained"),
        pytest.param(2.9, 2.9, ["warning"], id="under-the-limit-of-an-error"),
        pytest.param(1.9, 1.9, [], id="under-the-limit-of-a-warning"),
        pytest.param(9.0, 1.0, [], id="normalized-network-recovers"),
        pytest.param(0.5, 9.0, [], id="began-well"),
        pytest.param(-9.0, -9.0, [], id="vanishing"),
    ],
)
def test_growth_over_depth_must_last(
    initial: float, later: float | None, expected: list[str]
) -> None:
    assert severities(run(initial, later)) == expected


def test_exactly_at_the_limit_is_one_step_less() -> None:
    at_error = flows(3.0, 2.25, 1.5, 0.75, 0.0)
    at_warning = flows(2.0, 1.5, 1.0, 0.5, 0.0)

    assert severities(trace_of(flows=tuple(at_error))) == ["warning"]
    assert severities(trace_of(flows=tuple(at_warning))) == []


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param((6.0, 6.0, 6.0, 6.0, 0.0, 0.0, 0.0, 0.0), id="one-layer-makes-it-all"),
        pytest.param((9.0, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0), id="tiny-weights-before-a-norm"),
        pytest.param((8.0, 4.0, 0.0), id="too-few-layers"),
    ],
)
def test_several_layers_must_share_the_growth(profile: tuple[float, ...]) -> None:
    assert severities(trace_of(flows=tuple(flows(*profile)))) == []


def test_a_single_outlier_among_the_batches_is_no_finding() -> None:
    found = (*geometric(0.5), *geometric(9.0), *geometric(0.5))

    assert severities(trace_of(flows=found)) == []


def test_the_message_names_ends_limit_factor_and_kind() -> None:
    (found,) = findings_of(ExplodingGradient(), run(9.0), exemptions=())

    assert found.message == (
        "gradient grows by 1.0e+09 from l9 to l0 (limit 1e+03): 10 per layer, 11.2 of 9.0 "
        "decades in weights"
    )
    assert found.module == "l0"
    assert found.modules == ("l0", "l1", "l2", "l3", "l4", "l5")
    assert found.evidence["decades"] == {"ReLU": -2.25, "weights": 11.25}
    assert found.evidence["layers"] == {"l1": 0.7, "l0": 0.5}


def steps(norms: list[float], losses: list[float]) -> Trace:
    return trace_of(
        observe("total_gradient_norm", "", norms, kind="model"),
        observe("loss", "", losses, kind="model"),
    )


RISING = [1.0, 1.2, 2.0, 5.0, 20.0, 90.0]


@pytest.mark.parametrize(
    ("norms", "losses", "expected"),
    [
        pytest.param([1, 3, 9, 27, 81, 243], RISING, ["warning"], id="doubles-and-rises"),
        pytest.param([1, 9, 81, 729, 6561, 59049], RISING, ["error"], id="past-a-thousandfold"),
        pytest.param([1, 2, 4, 8, 16, 24], RISING, ["warning"], id="exactly-four-doublings"),
        pytest.param([1, 3, 9, 27, 40, 60], RISING, [], id="three-doublings"),
        pytest.param([1, 3, 9, 27, 81, 243], RISING[::-1], [], id="saddle-where-the-loss-falls"),
        pytest.param([1, 3, 9, 27, 81], RISING[:5], [], id="too-few-steps"),
        pytest.param([1, 1, 1, 300, 1, 1], RISING, [], id="single-outlier"),
        pytest.param([1, 3, 9, 27, 81, math.inf], [*RISING[:5], math.nan], ["error"], id="to-inf"),
        pytest.param([0, 3, 9, 27, 81, 243], RISING, [], id="from-exactly-zero"),
        pytest.param([], [], [], id="nothing-to-see"),
    ],
)
def test_a_norm_that_doubles_step_after_step_while_the_loss_rises(
    norms: list[float], losses: list[float], expected: list[str]
) -> None:
    assert severities(steps(norms, losses)) == expected


def test_the_message_names_steps_and_losses() -> None:
    (found,) = findings_of(
        ExplodingGradient(), steps([1, 3, 9, 27, 81, 243], RISING), exemptions=()
    )

    assert found.message == (
        "total gradient norm doubled on 5 of 5 steps in a row (limit 4), from 1 at step 1 to "
        "2.4e+02 at step 6, while the loss rose from 1 to 90"
    )
    assert "learning rate" in found.help
    assert found.step == 1


def test_growth_over_depth_speaks_for_growth_over_steps() -> None:
    doubling = steps([1, 3, 9, 27, 81, 243], RISING)
    both = trace_of(doubling.observations, flows=tuple(geometric(9.0)))

    (found,) = findings_of(ExplodingGradient(), both, exemptions=())

    assert "from l9 to l0" in found.message


def test_a_norm_that_doubles_within_where_it_has_been_is_noise() -> None:
    """A loss at its floor: no norm of the rise is above that of the first step."""
    falling_first = [2.0, 1.0, 0.1, 0.3, 0.01, 0.03, 0.1, 0.3, 1.0, 1.9]
    losses = [1.0, 0.5, 0.02, *[0.002 * 2**i for i in range(7)]]

    assert severities(steps(falling_first, losses)) == []
    assert severities(steps([0.5, *falling_first[1:]], [0.9, *losses[1:]])) == ["warning"]
