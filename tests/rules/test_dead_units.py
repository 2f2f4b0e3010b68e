"""GL201 dead-units."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules.dead_units import DeadUnits
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Observation, Trace

UNITS = 64


def rectifier(
    initial: float | None,
    trained: float | None = None,
    *,
    positions: int = 1280,
    units: int = UNITS,
    gate: bool = False,
) -> Trace:
    """A linear layer and its ReLU; with `gate`, in front of a sigmoid that scales a signal."""
    operations = [
        Operation(0, "linear", "linear", module="0", parameters=("0.weight",), shape=(32, units)),
        Operation(1, "relu", "relu", "1", inputs=(0,), shape=(32, units), site="1"),
        Operation(2, "linear", "linear", "2", inputs=(1,), shape=(32, 64)),
        Operation(3, "sigmoid", "sigmoid", "3", inputs=(2,), attributes={"gate": gate}),
    ]
    seen: list[list[Observation]] = []
    for step, fraction in ((0, initial), (40, trained)):
        if fraction is not None:
            seen.append(observe("dead_fraction", "1", [fraction], kind="ReLU", step=step))
            seen.append(observe("dead_positions", "1", [positions], kind="ReLU", step=step))
    return trace_of(*seen, operations=operations)


def severities(trace: Trace) -> list[str]:
    return [found.severity.label for found in findings_of(DeadUnits(), trace, exemptions=())]


@pytest.mark.parametrize(
    ("initial", "trained", "expected"),
    [
        pytest.param(0.0, 0.95, ["error"], id="well-over-the-limit-of-an-error"),
        pytest.param(0.0, 0.9, ["warning"], id="exactly-at-the-limit-of-an-error"),
        pytest.param(0.0, 0.4, ["note"], id="exactly-at-the-limit-of-a-warning"),
        pytest.param(0.0, 0.1, [], id="exactly-at-the-limit-of-a-note"),
        pytest.param(0.95, None, ["error"], id="dead-from-the-start"),
        pytest.param(0.8, None, ["note"], id="the-start-alone-is-no-warning"),
        pytest.param(0.95, 0.05, [], id="recovered"),
        pytest.param(0.0, 0.0, [], id="all-alive"),
        pytest.param(None, None, [], id="no-rectifier"),
    ],
)
def test_the_later_half_of_training_decides(
    initial: float | None, trained: float | None, expected: list[str]
) -> None:
    assert severities(rectifier(initial, trained)) == expected


@pytest.mark.parametrize(
    ("initial", "trained", "expected"),
    [
        pytest.param(0.5, 0.55, "note", id="deep-plain-network-fires-for-all-or-none"),
        pytest.param(0.65, 0.68, "note", id="within-three-deviations-of-one-half"),
        pytest.param(0.7, 0.7, "warning", id="more-than-chance-leaves"),
        pytest.param(0.3, 0.6, "warning", id="died-in-training"),
    ],
)
def test_what_was_dead_from_the_start_must_exceed_chance(
    initial: float, trained: float, expected: str
) -> None:
    assert severities(rectifier(initial, trained)) == [expected]


@pytest.mark.parametrize(
    ("late", "dead", "expected"),
    [
        pytest.param(0.49, 0.6, "note", id="learned-all-the-same"),
        pytest.param(0.5, 0.6, "warning", id="exactly-at-the-limit"),
        pytest.param(1.0, 0.6, "warning", id="did-not-learn"),
        pytest.param(0.1, 0.95, "error", id="nearly-all-died"),
    ],
)
def test_units_that_die_while_the_loss_falls_by_half_are_a_note(
    late: float, dead: float, expected: str
) -> None:
    trace = rectifier(0.0, dead)
    after = [late + (i % 2) * 0.2 for i in range(13)]  # the median of the last ones is `late`
    losses = observe("loss", "", [1.0], step=0) + observe("loss", "", after)

    assert severities(trace.but(observations=(*trace, *losses))) == [expected]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param([1 - 0.02 * i for i in range(16)], "note", id="falls-steadily-to-its-floor"),
        pytest.param([1 - 0.01 * i for i in range(16)], "warning", id="hardly-falls"),
        pytest.param(
            [1 - 0.02 * i + (i % 2) * 0.1 for i in range(16)], "warning", id="falls-among-noise"
        ),
        pytest.param(
            [1.2, *[1 - 0.02 * i for i in range(1, 16)]], "warning", id="rose-above-its-start"
        ),
    ],
)
def test_units_that_die_while_the_loss_falls_steadily_are_a_note(
    after: list[float], expected: str
) -> None:
    trace = rectifier(0.0, 0.6)
    losses = observe("loss", "", [1.0], step=0) + observe("loss", "", after)

    assert severities(trace.but(observations=(*trace, *losses))) == [expected]


@pytest.mark.parametrize(
    ("trained", "positions", "expected"),
    [
        pytest.param(0.95, 300, ["error"], id="enough-for-an-error"),
        pytest.param(0.95, 299, [], id="too-few-for-an-error"),
        pytest.param(0.6, 1000, ["warning"], id="enough-for-a-warning"),
        pytest.param(0.6, 999, [], id="too-few-for-a-warning"),
    ],
)
def test_units_are_judged_on_enough_positions(
    trained: float, positions: int, expected: list[str]
) -> None:
    assert severities(rectifier(0.0, trained, positions=positions)) == expected


def test_a_layer_of_few_units_may_die_by_chance() -> None:
    assert severities(rectifier(0.0, 1.0, units=10)) == ["error"]
    assert severities(rectifier(1.0, 1.0, units=9)) == ["note"]


def test_the_bottleneck_of_a_gate_is_left_at_a_note() -> None:
    assert severities(rectifier(0.0, 1.0, gate=True)) == ["note"]


def test_units_of_a_convolution_are_its_channels() -> None:
    trace = rectifier(0.5, 0.7)
    operations = [
        Operation(0, "conv", "conv", "0", parameters=("0.weight",), shape=(8, 16, 500)),
        Operation(1, "relu", "relu", "1", inputs=(0,), shape=(8, 16, 500), site="1"),
    ]

    wide = severities(trace_of(trace.observations, operations=operations))

    assert wide == ["note"]  # of 16 channels 70 % are dead by chance, of 500 they would not be


def test_numbers_that_are_not_finite_do_not_count_as_dead() -> None:
    trace = rectifier(0.0, 1.0)
    broken = observe("activation_rms", "1", [1.0, float("nan")], kind="ReLU")

    assert severities(trace_of(trace.observations, broken)) == []
    whole = observe("activation_rms", "1", [1.0, 0.0], kind="ReLU")
    assert severities(trace.but(observations=(*trace, *whole))) == ["error"]


def test_the_message_says_what_was_counted() -> None:
    trace = rectifier(0.05, 0.97)
    sparse = observe("activation_zero_share", "1", [0.98], kind="ReLU", step=40)

    (found,) = findings_of(DeadUnits(), trace_of(trace.observations, sparse), exemptions=())

    assert found.message == (
        "97% of units never fired on 1280 samples and positions by step 40 (limit 90%)"
    )
    assert found.module == "1"
    assert found.step == 40
    assert found.evidence["dead_fraction_initial"] == 0.05
    assert found.evidence["zero_share"] == 0.98


def test_limits_are_options() -> None:
    trace = rectifier(0.0, 0.6)

    assert severities(trace) == ["warning"]
    assert findings_of(DeadUnits(note_fraction=0.6, max_fraction=0.6), trace, exemptions=()) == ()


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        pytest.param(-3.0, "note", id="falls-steadily"),
        pytest.param(-1.0, "warning", id="stays"),
        pytest.param(-0.9, "warning", id="rises"),
    ],
)
def test_a_loss_below_zero_may_fall_steadily_too(late: float, expected: str) -> None:
    trace = rectifier(0.0, 0.6)
    after = [-1.0 + (late + 1.0) * min(1.0, i / 16) for i in range(32)]
    losses = observe("loss", "", [-1.0], step=0) + observe("loss", "", after)

    assert severities(trace.but(observations=(*trace, *losses))) == [expected]


def test_a_rectifier_of_unknown_shape_counts_as_sixteen_units() -> None:
    trace = rectifier(0.95)
    linear, relu, *rest = trace.graph
    unknown = trace.but(graph=Graph((linear, replace(relu, shape=()), *rest)))

    assert severities(unknown) == ["error"]
    assert severities(trace.but(observations=tuple(rectifier(0.8, 0.8)))) == ["warning"]
    assert severities(unknown.but(observations=tuple(rectifier(0.8, 0.8)))) == ["note"]
