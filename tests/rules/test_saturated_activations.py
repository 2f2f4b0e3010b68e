"""GL202 saturated-activations."""

from __future__ import annotations

import pytest

from gradlint.graph import Operation
from gradlint.rules.saturated_activations import SaturatedActivations
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Trace


def layer(
    initial: list[float], trained: list[float], *, gate: bool = False, last: bool = False
) -> Trace:
    operations = [
        Operation(0, "linear", "linear", "0", parameters=("0.weight",)),
        Operation(1, "tanh", "tanh", "1", inputs=(0,), site="1", attributes={"gate": gate}),
        Operation(2, "scale", "scale", inputs=(1,)),
        Operation(3, "mse" if last else "linear", "next", "2", inputs=(2,), in_loss=last),
    ]
    return trace_of(
        observe("saturated_share", "1", initial, kind="Tanh", step=0),
        observe("saturated_share", "1", trained, kind="Tanh"),
        operations=operations,
    )


def flagged(trace: Trace) -> bool:
    return bool(findings_of(SaturatedActivations(), trace, exemptions=()))


@pytest.mark.parametrize(
    ("initial", "trained", "expected"),
    [
        pytest.param([0.8] * 3, [0.8] * 10, True, id="from-the-start-and-still"),
        pytest.param([0.5] * 3, [0.5] * 10, False, id="exactly-at-the-limit"),
        pytest.param([0.8] * 3, [0.8] * 5 + [0.2] * 5, False, id="recovered"),
        pytest.param([0.1, 0.1, 0.9], [0.1] * 10, False, id="single-outlier-batch"),
        pytest.param([0.8] * 3, [0.8] * 4 + [0.1] + [0.8] * 5, True, id="median-not-minimum"),
        pytest.param([0.8] * 2, [], False, id="too-few-batches"),
        pytest.param([0.8] * 3, [], True, id="initialization-alone"),
        pytest.param([0.8] * 3, [0.8] * 4, False, id="too-few-steps"),
        pytest.param([0.1] * 3, [0.95] * 10, True, id="saturated-by-training"),
        pytest.param([0.1] * 3, [0.9] * 10, False, id="at-the-limit-of-what-training-does"),
        pytest.param([], [], False, id="nothing-to-see"),
    ],
)
def test_flags_layers_saturated_on_the_median_and_for_long(
    initial: list[float], trained: list[float], expected: bool
) -> None:
    assert flagged(layer(initial, trained)) is expected


@pytest.mark.parametrize(
    ("first", "late", "expected"),
    [
        pytest.param([0.8] * 7, [0.8, 0.7], True, id="at-every-look"),
        pytest.param([0.8] * 4, [0.8, 0.7], True, id="just-enough-steps"),
        pytest.param([0.8] * 7, [0.7], False, id="one-late-look"),
        pytest.param([0.8] * 8, [0.7], True, id="one-late-look-after-many"),
        pytest.param([0.8] * 3, [0.8, 0.7], False, id="too-few-steps"),
        pytest.param([0.8] * 6 + [0.4], [0.8, 0.7], False, id="left-it-once"),
        pytest.param([0.8] * 6 + [0.5], [0.8, 0.7], False, id="left-it-to-the-limit"),
        pytest.param([0.8] * 7, [0.8, 0.4], False, id="recovered"),
        pytest.param([0.2] + [0.95] * 6, [0.95, 0.95], False, id="came-to-it"),
    ],
)
def test_two_late_looks_do_where_every_look_agrees(
    first: list[float], late: list[float], expected: bool
) -> None:
    """A watched loop of forty steps is looked at in full twice in its later half."""
    trace = layer(first[:1], [*first, *[-1.0] * (32 - len(first)), *late])
    at = [step for step in trace.steps if step <= len(first) or step > 32]
    trace = trace.but(observations=[o for o in trace if o.step in at])

    assert flagged(trace) is expected


def test_gates_are_left_out() -> None:
    assert flagged(layer([0.9] * 3, [0.9] * 10))
    assert not flagged(layer([0.9] * 3, [0.9] * 10, gate=True))


def test_the_activation_in_front_of_the_loss_is_left_out() -> None:
    assert not flagged(layer([0.9] * 3, [0.9] * 10, last=True))


def test_the_message_names_both_ends_of_the_run() -> None:
    (found,) = findings_of(SaturatedActivations(), layer([0.8] * 3, [0.7] * 10), exemptions=())

    assert found.message == (
        "80% of elements are saturated at step 0 and 70% at step 10 (limit 50%)"
    )
    assert found.severity.label == "warning"
    assert found.module == "1"
    assert found.step == 0


def gated(
    largest: list[float],
    *,
    start: list[float] | None = None,
    kind: str = "sigmoid",
    gate: bool = True,
    in_loss: bool = False,
) -> Trace:
    operations = [
        Operation(0, "linear", "linear", "gate", parameters=("gate.weight",)),
        Operation(1, kind, kind, "gate", inputs=(0,), site="gate:sigmoid",
                  attributes={"gate": gate}, in_loss=in_loss),
        Operation(2, "mul", "mul", inputs=(1,)),
    ]  # fmt: skip
    first = [2e-9] * 3 if start is None else start
    return trace_of(
        observe("activation_abs_max", "gate:sigmoid", first, kind=kind, step=0),
        observe("activation_abs_max", "gate:sigmoid", largest, kind=kind),
        operations=operations,
    )


def test_a_gate_that_is_shut_altogether_is_flagged() -> None:
    (found,) = findings_of(SaturatedActivations(), gated([2e-9] * 3 + [8e-9]), exemptions=())

    assert "none of its outputs was above 8e-09 at step 0 and up to step 4" in found.message
    (found,) = findings_of(SaturatedActivations(), gated([]), exemptions=())
    assert "step 0 (limit" in found.message


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(gated([2e-9] * 3 + [1e-3]), id="opened-later"),
        pytest.param(gated([2e-9] * 4, start=[0.01] * 3), id="open-at-first"),
        pytest.param(gated([2e-9] * 3 + [2.0**-25]), id="exactly-at-the-limit"),
        pytest.param(gated([0.01] * 4, start=[0.018] * 3), id="biased-shut-by-four"),
        pytest.param(gated([2e-9] * 4, start=[]), id="initialization-not-seen"),
        pytest.param(gated([2e-9], start=[2e-9]), id="too-few-looks"),
        pytest.param(gated([2e-9] * 4, gate=False), id="no-gate"),
        pytest.param(gated([2e-9] * 4, kind="tanh"), id="zero-is-where-tanh-is-steepest"),
        pytest.param(gated([2e-9] * 4, in_loss=True), id="weights-of-a-loss"),
    ],
)
def test_gates_that_open_are_silent(trace: Trace) -> None:
    assert not flagged(trace)
