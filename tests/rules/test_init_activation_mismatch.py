"""GL101: gains that do not fit the activation, compounded over depth."""

from __future__ import annotations

import math

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules._chains import chains
from gradlint.rules._gains import Gain, gain_of
from gradlint.rules.init_activation_mismatch import InitActivationMismatch
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import Observation, ParameterFacts, Trace

DEFAULT = 1 / math.sqrt(3)


def deep(
    gains: list[float],
    activation: str = "relu",
    *,
    between: str | None = None,
    rms: list[float] | None = None,
    saturated: float | None = None,
    output: float = 0.1,
    **facts: object,
) -> Trace:
    """Layers with these gains, an activation behind each, and an output layer."""
    unit = ["linear", activation, *([between] if between else [])]
    size = len(unit)
    ops = chain(*unit * len(gains), "linear")
    seen: list[list[Observation]] = []
    parameters = []
    for i, gain in enumerate([*gains, output]):
        path = f"{size * i}.weight"
        seen.append(observe("init_gain", path, [gain], kind="parameter", step=0))
        parameters.append(ParameterFacts(path, (64, 64)))
    for i, value in enumerate(rms or []):
        seen.append(observe("activation_rms", str(size * i), [value], step=0))
    if saturated is not None:
        for i in range(len(gains)):
            seen.append(observe("saturated_share", str(size * i + 1), [saturated], step=0))
    return trace_of(*seen, operations=ops, parameters=parameters, **facts)


@pytest.mark.parametrize(
    ("trace", "severity"),
    [
        pytest.param(deep([0.1] * 10), Severity.WARNING, id="far-too-small"),
        pytest.param(deep([DEFAULT] * 20), Severity.WARNING, id="torch-default-20-layers"),
        pytest.param(deep([DEFAULT] * 7), Severity.NOTE, id="torch-default-8-layers"),
        pytest.param(deep([DEFAULT] * 5), None, id="torch-default-6-layers"),
        pytest.param(deep([DEFAULT] * 8, "tanh"), None, id="torch-default-tanh-9-layers"),
        pytest.param(deep([math.sqrt(2)] * 50), None, id="he"),
        pytest.param(deep([1.0] * 50, "tanh"), None, id="xavier-tanh"),
        pytest.param(deep([5 / 3] * 50, "tanh"), None, id="tanh-with-torch-s-gain"),
        pytest.param(deep([1.0] * 50, "selu"), None, id="lecun-selu"),
        pytest.param(deep([math.sqrt(2)] * 50, "gelu"), None, id="he-gelu"),
        pytest.param(deep([DEFAULT] * 50, "sigmoid"), None, id="sigmoid-loses-it-itself"),
        pytest.param(deep([1e-4] * 3), None, id="three-layers"),
        pytest.param(deep([1e-9, *[1.414] * 20]), None, id="a-single-small-layer"),
        pytest.param(deep([1e-9, 1e-9, *[1.414] * 20]), None, id="two-small-layers"),
        pytest.param(deep([0.0] * 10), None, id="zeros-have-no-gain"),
        pytest.param(deep([]), None, id="output-layer-alone"),
    ],
)
def test_flags_gains_that_compound(trace: Trace, severity: Severity | None) -> None:
    found = findings_of(InitActivationMismatch(), trace)

    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_exactly_at_the_limit_is_silent() -> None:
    rule = InitActivationMismatch(min_layers=3)  # a decade a layer, one of them left out

    assert not findings_of(rule, deep([0.1, 0.1, 0.1], "view"))
    assert findings_of(rule, deep([0.1, 0.099, 0.099], "view"))


@pytest.mark.parametrize("between", ["batch_norm", "layer_norm", "add", "softmax", "attention"])
def test_a_normalization_or_a_join_ends_the_chain(between: str) -> None:
    assert not findings_of(InitActivationMismatch(), deep([0.1] * 20, between=between))


def test_a_measured_fall_makes_a_note_a_warning() -> None:
    falls = [0.5**i for i in range(9)]

    (note,) = findings_of(InitActivationMismatch(), deep([DEFAULT] * 9))
    (warning,) = findings_of(InitActivationMismatch(), deep([DEFAULT] * 9, rms=falls))

    assert (note.severity, warning.severity) == (Severity.NOTE, Severity.WARNING)


def test_a_growth_denied_by_the_activations_is_silent() -> None:
    """Equalized learning rate: weights of N(0, 1), scaled where they are used."""
    large = [8.0] * 8

    assert findings_of(InitActivationMismatch(), deep(large, rms=[5.6**i for i in range(8)]))
    assert not findings_of(InitActivationMismatch(), deep(large, rms=[1.0] * 8))


@pytest.mark.parametrize(("share", "flagged"), [(0.8, True), (0.25, False), (None, False)])
def test_large_gains_in_front_of_tanh_need_saturated_units(
    share: float | None, flagged: bool
) -> None:
    trace = deep([8.0] * 10, "tanh", rms=[8.0] * 10, saturated=share)

    assert bool(findings_of(InitActivationMismatch(), trace)) is flagged


@pytest.mark.parametrize(
    ("gains", "share", "flagged"),
    [
        pytest.param([8.0, 8.0], 0.8, True, id="two-layers-that-saturate"),
        pytest.param([8.0], 0.8, False, id="a-single-one"),
        pytest.param([8.0, 4.9], 0.8, False, id="one-of-them-hardly-large"),
        pytest.param([8.0, 8.0], 0.2, False, id="large-and-harmless"),
        pytest.param([0.1, 0.1], 0.8, False, id="saturated-by-something-else"),
    ],
)
def test_two_layers_are_enough_where_they_saturate(
    gains: list[float], share: float, flagged: bool
) -> None:
    trace = deep(gains, "tanh", saturated=share)

    assert bool(findings_of(InitActivationMismatch(), trace)) is flagged


def test_loaded_weights_are_not_judged() -> None:
    assert not findings_of(InitActivationMismatch(), deep([0.1] * 20, pretrained=True))


def test_the_message_of_a_loss_names_gain_and_product() -> None:
    (found,) = findings_of(InitActivationMismatch(), deep([0.1] * 10))

    assert found.message == (
        "weight gain is 0.1 where ReLU asks for 1.4: over 10 layers without normalization the "
        "signal vanishes to 3.1e-12 times its size (limit 0.01)"
    )
    assert found.help == (
        'Use nn.init.kaiming_normal_(layer.weight, nonlinearity="relu") on these layers.'
    )
    assert found.module == "0"
    assert len(found.modules) == 10


def test_the_message_of_saturation_names_the_share() -> None:
    (found,) = findings_of(InitActivationMismatch(), deep([8.0] * 10, "tanh", saturated=0.77))

    assert found.message == (
        "weight gain is 8 where Tanh asks for 1.7: over 10 layers without normalization 77% of "
        "elements saturate (limit 25%)"
    )
    assert found.help == "Use nn.init.xavier_normal_(layer.weight) on these layers."


def test_a_thousand_layers_do_not_overflow() -> None:
    assert findings_of(InitActivationMismatch(), deep([14.0] * 1000))


@pytest.mark.parametrize(
    ("kind", "attributes", "gain", "wanted"),
    [
        ("relu", {}, 1.0, math.sqrt(2)),
        ("leaky_relu", {"slope": 0.2}, 1.0, math.sqrt(2 / 1.04)),
        ("tanh", {}, 0.5, 1.0),
        ("tanh", {}, 1.2, 1.2),
        ("tanh", {}, 9.0, 5 / 3),
        ("selu", {}, 2.0, 1.0),
    ],
)
def test_what_an_activation_asks_for(
    kind: str, attributes: dict[str, float], gain: float, wanted: float
) -> None:
    weight = Operation(0, "linear", "", "fc", parameters=("fc.bias", "fc.weight"))
    activation = Operation(1, kind, "", "fc", (0,), attributes=attributes)
    trace = trace_of(
        observe("init_gain", "fc.weight", [gain], step=0),
        operations=(weight, activation),
        parameters=[ParameterFacts("fc.weight", (4, 4)), ParameterFacts("fc.bias", (4,))],
    )

    known = gain_of(trace, next(chains(trace.graph))[0])

    assert known == Gain("fc", kind, gain, pytest.approx(wanted))


@pytest.mark.parametrize("kind", ["conv_transpose"])
def test_a_gain_without_a_meaning_is_none(kind: str) -> None:
    trace = trace_of(
        observe("init_gain", "0.weight", [1.0], step=0),
        operations=chain(kind, "relu"),
        parameters=[ParameterFacts("0.weight", (4, 4))],
    )

    assert gain_of(trace, next(chains(trace.graph))[0]) is None


def test_two_layers_are_no_chain() -> None:
    """Without the output layer behind them."""
    two, three = (deep([20.0] * n, "tanh", saturated=0.9) for n in (2, 3))

    assert findings_of(InitActivationMismatch(), three)
    assert not findings_of(
        InitActivationMismatch(), two.but(graph=Graph(two.graph.operations[:-1]))
    )


def test_gains_that_fit_in_every_second_layer_are_silent() -> None:
    assert not findings_of(InitActivationMismatch(), deep([0.1, math.sqrt(2)] * 5))
    assert findings_of(InitActivationMismatch(), deep([0.1, 0.1, 0.1, math.sqrt(2)] * 3))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(deep([20.0] * 3, output=20.0), True, id="it-grows-up-to-it-and-in-it"),
        pytest.param(deep([20.0] * 3, output=1.0), False, id="it-fits"),
        pytest.param(deep([1.414] * 3, output=2000.0), False, id="it-alone-is-large"),
        pytest.param(deep([0.02] * 3, output=0.02), False, id="as-small-as-it-likes"),
        pytest.param(deep([20.0] * 3, output=20.0, rms=[1.0] * 4), False, id="denied"),
        pytest.param(
            deep([8.0] * 3, "tanh", output=20.0, saturated=0.2), False, id="bounded-before"
        ),
    ],
)
def test_an_output_layer_counts_where_the_signal_grows(trace: Trace, flagged: bool) -> None:
    assert bool(findings_of(InitActivationMismatch(), trace)) is flagged
