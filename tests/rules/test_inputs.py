"""What a first layer is thought to read."""

from __future__ import annotations

import math

import pytest

from gradlint.graph import Operation
from gradlint.rules._inputs import reading
from gradlint.testing import observe, trace_of
from gradlint.trace import ParameterFacts, Trace

LINEAR = Operation(0, "linear", "", "fc", parameters=("fc.weight", "fc.bias"))
WEIGHT = ParameterFacts("fc.weight", (8, 16), fan_in=16)
BIAS = ParameterFacts("fc.bias", (8,))


def trace(rms: float | None, *parameters: ParameterFacts, path: str = "fc") -> Trace:
    """A layer with weights of size 0.25, so that an input of scale 3 gives 3."""
    return trace_of(
        observe("activation_rms", path, [] if rms is None else [rms], step=0),
        observe("weight_rms", "fc.weight", [0.25], step=0),
        observe("weight_rms", "fc.bias", [4.0], step=0),
        parameters=parameters,
    )


def test_the_output_is_compared_with_what_weights_and_bias_make_of_the_input() -> None:
    assert reading(trace(3.0, WEIGHT), LINEAR, 3.0) == 1.0
    assert reading(trace(math.hypot(3.0, 4.0), WEIGHT, BIAS), LINEAR, 3.0) == 1.0
    assert reading(trace(3.0, WEIGHT), LINEAR, 0.0) is None


@pytest.mark.parametrize(
    ("seen", "layer"),
    [
        pytest.param(trace(3.0, BIAS), LINEAR, id="weight-unknown"),
        pytest.param(trace(None, WEIGHT), LINEAR, id="not-measured"),
        pytest.param(
            trace(3.0, WEIGHT, path=""),
            Operation(0, "linear", "", "", parameters=("fc.weight",)),
            id="bare-weight-of-a-measured-model",
        ),
    ],
)
def test_a_layer_that_was_not_measured_says_nothing(seen: Trace, layer: Operation) -> None:
    assert reading(seen, layer, 3.0) is None
