"""What a first layer is thought to read."""

from __future__ import annotations

import math

import pytest

from gradlint.graph import Operation
from gradlint.rules._inputs import joined, reading
from gradlint.testing import observe, trace_of
from gradlint.trace import ParameterFacts, TensorFacts, Trace

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


def side_by_side(
    *inputs: tuple[tuple[int, ...], float],
    reads: float,
    layer: Operation = LINEAR,
    bad: int = 0,
    parameters: tuple[ParameterFacts, ...] = (WEIGHT,),
) -> list[tuple[str, str, float]]:
    """What a layer of 16 inputs is found to read beside others, by the size that it reads."""
    tensors = [
        TensorFacts(str(i), shape, "int64", mean=size, non_finite=bad)
        for i, (shape, size) in enumerate(inputs)
    ]
    observed = trace_of(
        observe("activation_rms", "fc", [reads], step=0),
        observe("weight_rms", "fc.weight", [0.25], step=0),
        operations=(Operation(0, "x", "") if layer.inputs else layer, layer)[
            : 1 + bool(layer.inputs)
        ],
        parameters=parameters,
        inputs=tensors,
        batch_size=64,
    )
    return [(path, tensor.name, spread) for path, tensor, spread in joined(observed)]


STEP = ((64,), 400.0)
FEATURES = ((64, 15), 2.0)
SIZE = math.sqrt((400**2 + 15 * 4) / 16)


def test_a_layer_as_wide_as_two_inputs_reads_both() -> None:
    expected = [("fc", "0", 200.0)]

    assert side_by_side(STEP, FEATURES, reads=SIZE) == expected
    assert side_by_side(STEP, ((64, 3, 5), 2.0), reads=SIZE) == expected
    assert side_by_side(STEP, FEATURES, ((64, 7), 2.0), reads=SIZE) == expected
    assert side_by_side(STEP, FEATURES, reads=SIZE * 0.5) == expected
    assert side_by_side(STEP, FEATURES, reads=SIZE * 2) == expected


def test_a_layer_that_need_not_read_both_is_said_nothing_of() -> None:
    after = Operation(1, "linear", "", "fc", (0,), ("fc.weight",))
    conv = Operation(0, "conv", "", "fc", parameters=("fc.weight",))

    assert side_by_side(STEP, FEATURES, reads=2.0) == []  # scaled by the model
    assert side_by_side(STEP, FEATURES, reads=SIZE * 2.1) == []
    assert side_by_side(STEP, FEATURES, reads=SIZE * 0.49) == []
    assert side_by_side(((64,), 4.0), FEATURES, reads=2.2) == []  # the others alone would do
    assert side_by_side(STEP, ((64, 31), 2.0), reads=SIZE) == []  # embedded
    assert side_by_side(STEP, ((60, 15), 2.0), reads=SIZE) == []
    assert side_by_side(((64, 16), 400.0), reads=400.0) == []
    assert side_by_side(STEP, ((64, 15), 0.0), reads=SIZE) == []
    assert side_by_side(STEP, FEATURES, *[((64, 40), 1.0)] * 5, reads=SIZE) == []
    assert side_by_side(STEP, FEATURES, reads=SIZE, bad=1) == []
    assert side_by_side(STEP, FEATURES, reads=SIZE, layer=after) == []
    assert side_by_side(STEP, FEATURES, reads=SIZE, layer=conv) == []
    assert side_by_side(STEP, FEATURES, reads=SIZE, parameters=(BIAS,)) == []
