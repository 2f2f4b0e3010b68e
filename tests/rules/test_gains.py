"""What gain a weight has, and what the activation behind it asks for."""

from __future__ import annotations

import math

import pytest

from gradlint.graph import SIGMOIDAL, Operation
from gradlint.rules._chains import Link
from gradlint.rules._gains import Gain, advice_for, gain_of
from gradlint.testing import observe, trace_of
from gradlint.trace import ParameterFacts


def measured(
    gain: float | None, activation: str | None, kind: str = "linear", **attributes: float
) -> Gain | None:
    weight = Operation(0, kind, "", "fc", parameters=("fc.weight",))
    behind = None
    if activation is not None:
        behind = Operation(1, activation, "", "act", (0,), attributes=attributes)
    trace = trace_of(
        observe("init_gain", "fc.weight", [] if gain is None else [gain], step=0),
        parameters=[ParameterFacts("fc.weight", (8, 8))],
    )
    return gain_of(trace, Link(weight, behind))


@pytest.mark.parametrize(
    ("gain", "activation", "wanted"),
    [
        (0.5, "relu", math.sqrt(2)),
        (2.0, "relu", math.sqrt(2)),
        (0.5, "tanh", 1.0),
        (1.2, "tanh", 1.2),
        (9.0, "tanh", 5 / 3),
        (0.5, None, 1.0),
    ],
)
def test_the_nearest_gain_that_keeps_the_signal_is_wanted(
    gain: float, activation: str | None, wanted: float
) -> None:
    found = measured(gain, activation)

    assert found is not None
    assert found.wanted == pytest.approx(wanted)
    assert found.decades == pytest.approx(math.log10(gain / wanted))


def test_a_leaky_rectifier_asks_for_less_the_more_it_leaks() -> None:
    found = measured(1.0, "leaky_relu", slope=1.0)

    assert found is not None
    assert found.wanted == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gain", "activation", "kind"),
    [
        pytest.param(None, "relu", "linear", id="not-measured"),
        pytest.param(0.0, "relu", "linear", id="zeros"),
        pytest.param(math.inf, "relu", "linear", id="infinite"),
        pytest.param(1.0, "glu", "linear", id="an-activation-without-a-known-gain"),
        pytest.param(1.0, "relu", "conv_transpose", id="fan-in-depends-on-the-stride"),
    ],
)
def test_what_is_not_known_has_no_gain(gain: float | None, activation: str, kind: str) -> None:
    assert measured(gain, activation, kind) is None


@pytest.mark.parametrize(
    ("activations", "names"),
    [
        (("leaky_relu", "prelu"), 'a=slope, nonlinearity="leaky_relu"'),
        (sorted(SIGMOIDAL), "xavier_normal_"),
        (("relu", "gelu"), 'nonlinearity="relu"'),
        (("", "selu"), 'nonlinearity="linear"'),
    ],
)
def test_the_advice_names_the_recipe_of_the_activation(
    activations: tuple[str, ...], names: str
) -> None:
    assert all(names in advice_for(activation) for activation in activations)
