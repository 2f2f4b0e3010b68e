from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.unnormalized_input import UnnormalizedInput
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, OptimizerFacts, ParameterFacts, TensorFacts, Trace

FAN_IN, SPREAD = 20, 0.13


def trace(
    mean: float,
    std: float,
    *,
    reached: float | None = None,
    then: tuple[str, ...] = ("relu", "linear"),
    dtype: str = "float32",
    channels: tuple[float, ...] = (),
    **facts: object,
) -> Trace:
    """A first layer of 20 inputs that reads `reached` (the input itself by default)."""
    scale = math.hypot(mean, std) if reached is None else reached
    first = Operation(0, "linear", "linear", "0", parameters=("0.weight",), missing=1, site="0")
    rest = [
        Operation(i, kind, kind, str(i), (i - 1,), (f"{i}.weight",) if kind == "linear" else ())
        for i, kind in enumerate(then, 1)
    ]
    tensor = TensorFacts(
        "input",
        (64, FAN_IN),
        dtype,
        mean - 2 * std,
        mean + 2 * std,
        mean,
        std,
        channel_means=(0.0,) * len(channels),
        channel_stds=channels,
    )
    return trace_of(
        observe("activation_rms", "0", [SPREAD * math.sqrt(FAN_IN) * scale] * 3, step=0),
        observe("weight_rms", "0.weight", [SPREAD], kind="parameter", step=0),
        operations=(first, *rest),
        parameters=(
            ParameterFacts("0.weight", (32, FAN_IN), module="0", fan_in=FAN_IN),
            ParameterFacts("2.weight", (5, 32), module="2", fan_in=32),
        ),
        inputs=(tensor,),
        **facts,
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(UnnormalizedInput(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(120.0, 75.0), Severity.ERROR, id="pixels"),
        pytest.param(trace(15.0, 5.0), Severity.WARNING, id="large"),
        pytest.param(trace(0.0, 10.0), None, id="exactly-at-the-limit"),
        pytest.param(trace(0.0, 10.1), Severity.WARNING, id="just-over-it"),
        pytest.param(trace(0.0, 50.0), Severity.WARNING, id="exactly-at-the-limit-of-errors"),
        pytest.param(trace(3.5, 2.0), None, id="iris"),
        pytest.param(trace(0.0, 1.0), None, id="standardized"),
        pytest.param(trace(0.0, 1e-5), Severity.WARNING, id="tiny"),
        pytest.param(trace(0.0, 0.0), None, id="all-zero"),
    ],
)
def test_the_scale_of_the_input_is_judged(observed, expected) -> None:
    assert severities(observed) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("channels", "flagged"),
    [
        pytest.param((1.0,) * 19 + (101.0,), True, id="one-large-feature"),
        pytest.param((1.0,) * 19 + (100.0,), False, id="exactly-at-the-limit"),
        pytest.param((0.001,) * 19 + (0.5,), False, id="pixels-at-the-border"),
        pytest.param((0.0,) * 19 + (20.0,), False, id="constant-features"),
    ],
)
def test_features_of_very_different_scales_are_a_warning(channels, flagged) -> None:
    assert severities(trace(0.0, 5.0, channels=channels)) == ([Severity.WARNING] if flagged else [])


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(120.0, 75.0, reached=1.0), id="the-model-scales-it"),
        pytest.param(trace(120.0, 75.0, dtype="int64"), id="token-ids"),
        pytest.param(trace(120.0, 75.0, synthesized=True), id="made-up"),
        pytest.param(trace_of(inputs=(TensorFacts("x", (8, 4), "float32", 0, 255, 120, 75),)),
                     id="no-first-layer-seen"),
        pytest.param(trace_of(), id="nothing"),
    ],
)  # fmt: skip
def test_what_does_not_reach_the_weights_is_silent(observed) -> None:
    assert severities(observed) == []


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (("batch_norm", "linear"), Severity.NOTE),
        (("parameter_add", "layer_norm", "linear"), Severity.NOTE),
        (("relu", "linear", "batch_norm"), Severity.WARNING),
    ],
)
def test_a_normalization_behind_it_takes_the_scale_out(then, expected) -> None:
    assert severities(trace(120.0, 75.0, then=then)) == [expected]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (OptimizerFacts("SGD"), Severity.ERROR),
        (OptimizerFacts("AdamW"), Severity.WARNING),
        (OptimizerFacts("Adam", probe=True), Severity.ERROR),
        (None, Severity.ERROR),
    ],
)
def test_an_optimizer_that_divides_the_scale_out_makes_it_a_warning(optimizer, expected) -> None:
    assert severities(trace(120.0, 75.0, optimizer=optimizer)) == [expected]


def test_trained_weights_make_it_a_note() -> None:
    assert severities(trace(120.0, 75.0, pretrained=True)) == [Severity.NOTE]


def test_the_message_names_the_range_and_the_limit() -> None:
    (found,) = findings_of(UnnormalizedInput(), trace(120.0, 75.0))

    assert found.message == (
        "input reaches 0 with values from -30 to 2.7e+02: root mean square 1.4e+02 (limit 10)"
    )


@pytest.mark.parametrize(
    ("kind", "rms", "flagged"),
    [("LSTM", 0.5, True), ("LSTM", 0.3, False), ("GRU", 0.6, True), ("RNN", 0.7, False)],
)
def test_a_recurrent_layer_is_told_by_its_saturation(kind, rms, flagged) -> None:
    first = Operation(0, "rnn", "rnn", "rnn", parameters=("rnn.weight_ih_l0",), missing=1)
    observed = trace_of(
        observe("activation_rms", "rnn", [rms] * 3, step=0),
        operations=(first,),
        modules=(ModuleFacts("rnn", kind, 0, 1, input_shape=(8, 12, 1)),),
        inputs=(TensorFacts("input", (8, 12, 1), "float32", 0, 900, 400.0, 200.0),),
    )

    assert bool(severities(observed)) is flagged


def test_without_real_numbers_there_is_nothing_to_judge() -> None:
    ids = trace(120.0, 75.0, dtype="int64")

    assert UnnormalizedInput().skip_reason(ids) == "no floating input was seen"


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "int64"}, {"non_finite": 2}, {"shape": ()}],
    ids=["token-ids", "nan-is-another-rule-s", "a-single-number"],
)
def test_other_inputs_beside_a_good_one_are_silent(changes: dict[str, Any]) -> None:
    observed = trace(120.0, 75.0)
    good = TensorFacts("features", (64, FAN_IN), "float32", std=1.0)
    other = replace(observed.facts.inputs[0], **changes)

    both = observed.but(facts=replace(observed.facts, inputs=(good, other)))

    assert severities(both) == []


def test_small_numbers_that_many_weights_add_up_are_silent() -> None:
    """Bags of words: rows of thousands of columns, nearly all of them 0."""
    words = 40_000
    observed = trace(0.0, 9e-4, reached=9e-4 * math.sqrt(words / FAN_IN))
    wide = replace(observed.parameters["0.weight"], fan_in=words)

    assert severities(observed.but(parameters={"0.weight": wide})) == []


def test_a_layer_behind_another_operation_does_not_read_the_input() -> None:
    observed = trace(120.0, 75.0)
    scaled = Operation(0, "parameter_mul", "", "scale", missing=1)
    layer = Operation(1, "linear", "linear", "0", (0,), ("0.weight",))

    assert severities(observed.but(graph=Graph((scaled, layer)))) == []


def called_on_the_input(
    *,
    kind: str = "Linear",
    ours: bool = False,
    given: bool = True,
    shape: tuple[int, ...] = (64, FAN_IN),
    learns: bool = True,
    then: str = "ReLU",
    operations: tuple[Operation, ...] = (),
    scale: float = 120.0,
) -> Trace:
    """A model whose first layer the graph does not show: its output is cut off."""
    mean = math.sqrt(0.5) * scale
    tensor = TensorFacts("input", (64, FAN_IN), "float32", 0, 255, mean, mean)
    return trace_of(
        operations=operations,
        modules=(
            ModuleFacts("0", kind, 0, 1, parameters=("0.weight",), input_shape=shape,
                        input_given=given, ours=ours),
            ModuleFacts("1", then, 1, 1),
        ),
        parameters=(
            ParameterFacts("0.weight", (32, FAN_IN), module="0", fan_in=FAN_IN,
                           requires_grad=learns),
        ),
        inputs=(tensor,),
    )  # fmt: skip


FIRST = Operation(0, "linear", "linear", "0", parameters=("0.weight",), missing=1, site="0")


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(called_on_the_input(), [Severity.ERROR], id="below-a-cut"),
        pytest.param(called_on_the_input(scale=40), [Severity.WARNING], id="not-that-large"),
        pytest.param(called_on_the_input(kind="Conv2d"), [Severity.ERROR], id="a-convolution"),
        pytest.param(
            called_on_the_input(shape=(8, 8, FAN_IN)), [Severity.ERROR], id="in-another-shape"
        ),
        pytest.param(called_on_the_input(given=False), [], id="what-the-model-made-of-it"),
        pytest.param(called_on_the_input(shape=(64, 2)), [], id="of-another-input"),
        pytest.param(called_on_the_input(kind="GRU"), [], id="a-layer-of-another-kind"),
        pytest.param(called_on_the_input(ours=True), [], id="the-user's-own-layer"),
        pytest.param(called_on_the_input(learns=False), [], id="frozen"),
        pytest.param(
            called_on_the_input(then="BatchNorm1d"), [Severity.NOTE], id="normalized-somewhere"
        ),
        pytest.param(
            called_on_the_input(then="BatchNorm1d", operations=(FIRST,)),
            [Severity.ERROR],
            id="a-layer-whose-output-was-not-measured",
        ),
    ],
)
def test_a_layer_that_was_called_on_the_input_reads_it(observed, expected) -> None:
    assert severities(observed) == expected


def test_a_layer_that_makes_little_of_its_input_is_left_in_peace() -> None:
    """Of x, x², x³, x⁴ the last is all of the input's size, and it has one small weight."""
    observed = called_on_the_input(operations=(FIRST,), scale=12.0)
    measured = trace_of(
        observe("activation_rms", "0", [0.2 * SPREAD * math.sqrt(FAN_IN) * 12], step=0),
        observe("weight_rms", "0.weight", [SPREAD], kind="parameter", step=0),
    )

    assert severities(observed.but(observations=measured.observations)) == []


def test_a_normalization_of_the_loss_makes_no_better_model() -> None:
    observed = trace(120.0, 75.0, then=("relu", "linear"))
    last = Operation(3, "layer_norm", "", None, (2,), in_loss=True)

    judged = observed.but(graph=Graph((*observed.graph, last)))

    assert severities(judged) == [Severity.ERROR]


GIVEN = ModuleFacts(
    "0", "Linear", calls=1, input_shape=(64, FAN_IN), input_given=True, parameters=("0.weight",)
)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(-1.0, 0.003), Severity.WARNING, id="next-to-one-number"),
        pytest.param(trace(1.0, 0.02), None, id="exactly-at-the-limit"),
        pytest.param(trace(0.0, 0.0, modules=(GIVEN,)), Severity.WARNING, id="zeros"),
        pytest.param(
            trace(0.0, 0.0, reached=1.0, modules=(GIVEN,)), None, id="zeros-that-another-reads"
        ),
        pytest.param(trace(1.0, 0.0), None, id="ones-of-a-graph-s-nodes"),
        pytest.param(
            trace(-1.0, 0.003, then=("batch_norm", "relu")), Severity.NOTE, id="normalized-behind"
        ),
        pytest.param(trace(-1.0, 0.003, pretrained=True), Severity.NOTE, id="loaded-weights"),
        pytest.param(trace(-1.0, 0.003, reached=0.1), None, id="scaled-by-the-model"),
    ],
)
def test_inputs_that_hardly_vary_tell_nothing(observed, expected) -> None:
    found = findings_of(UnnormalizedInput(), observed)

    assert [f.severity for f in found] == ([] if expected is None else [expected])
    assert all("normalized twice" in f.help for f in found)


def test_a_sample_of_few_numbers_may_hardly_vary() -> None:
    observed = trace(1.0, 0.001)
    few = replace(observed.facts.inputs[0], shape=(64, 3))

    assert not findings_of(
        UnnormalizedInput(), observed.but(facts=replace(observed.facts, inputs=(few,)))
    )


def test_inputs_that_hardly_vary_are_no_small_numbers_to_add_up() -> None:
    wide = 40_000
    observed = trace(9e-4, 1e-6, reached=9e-4 * math.sqrt(wide / FAN_IN))
    layer = replace(observed.parameters["0.weight"], fan_in=wide)

    assert severities(observed.but(parameters={"0.weight": layer})) == [Severity.WARNING]


def test_large_inputs_that_hardly_vary_are_large_first_of_all() -> None:
    (found,) = findings_of(UnnormalizedInput(), trace(120.0, 0.5))

    assert "root mean square 1.2e+02 (limit 10)" in found.message
    assert found.help == UnnormalizedInput.help


@pytest.mark.parametrize(
    ("late", "scale", "expected"),
    [
        (0.001, 12.0, [Severity.NOTE]),
        (0.5, 12.0, [Severity.WARNING]),
        (0.001, 120.0, [Severity.ERROR]),
    ],
)
def test_a_large_input_that_all_was_learned_from_is_a_note(late, scale, expected) -> None:
    losses = observe("loss", "", [12.0, *[12.0 * late] * 39])
    observed = called_on_the_input(scale=scale).but(observations=trace_of(losses).observations)

    assert severities(observed) == expected


def beside(
    step: float, others: float = 1.0, then: tuple[str, ...] = ("relu", "linear"), **facts: object
) -> list[tuple[Severity, str]]:
    """What is said of a step of `step` that a first layer reads beside 19 features."""
    size = math.sqrt((step**2 + 19 * others**2) / FAN_IN)
    observed = trace(0.0, 1.0, reached=size, then=then, batch_size=64, **facts)
    tensors = (
        TensorFacts("x", (64, 19), "float32", -1, 1, 0.0, others),
        TensorFacts("t", (64,), "int64", 0, 2 * step, step, 0.0),
    )
    whole = observed.but(facts=replace(observed.facts, inputs=tensors))
    return [(f.severity, f.message) for f in findings_of(UnnormalizedInput(), whole)]


def test_a_time_beside_features_is_a_feature() -> None:
    ((severity, said),) = beside(500.0)

    assert severity == Severity.WARNING
    assert said == (
        "t reaches 0 with values from 0 to 1e+03, beside features of a size 5e+02 times smaller "
        "(limit 1e+02)"
    )
    assert beside(100.0) == []
    assert beside(10.0, others=0.01) == []
    assert [s for s, _ in beside(500.0, pretrained=True)] == [Severity.NOTE]
    assert [s for s, _ in beside(500.0, then=("layer_norm", "linear"))] == [Severity.NOTE]


@pytest.mark.parametrize(("step", "expected"), [(40.0, Severity.NOTE), (60.0, Severity.WARNING)])
def test_a_time_that_does_no_harm_is_a_note(step: float, expected: Severity) -> None:
    observed = trace(0.0, 1.0, batch_size=64, reached=step / math.sqrt(FAN_IN))
    losses = [
        *observe("loss", "", [1.0], kind="model", step=0),
        *observe("loss", "", [0.01] * 40, kind="model"),
    ]
    tensors = (
        TensorFacts("x", (64, 19), "float32", -1, 1, 0.0, 0.1),
        TensorFacts("t", (64,), "int64", 0, 2 * step, step, 0.0),
    )
    whole = observed.but(
        facts=replace(observed.facts, inputs=tensors),
        observations=(*observed.observations, *losses),
    )

    assert severities(whole) == [expected]
