from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.unregistered_module import UnregisteredModule
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import Event, OptimizerFacts, ParameterFacts, Trace


def event(**changes: object) -> Event:
    detail = {
        "attribute": "layers",
        "kind": "Linear",
        "container": "list",
        "parameters": 816,
        "modules": 3,
        "training": True,
    }
    return Event("unregistered-module", module="", detail={**detail, **changes})


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({}, True),
        ({"parameters": 0}, False),
        ({"training": False}, False),
    ],
    ids=["layers", "frozen", "a-teacher-in-eval-mode"],
)
def test_hidden_layers_are_an_error_if_they_are_to_learn(changes, flagged) -> None:
    found = findings_of(UnregisteredModule(), trace_of(events=(event(**changes),)))

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(("foreign", "expected"), [(6, Severity.WARNING), (2, Severity.ERROR)])
def test_an_optimizer_given_them_by_hand_makes_it_a_warning(foreign, expected) -> None:
    optimizer = OptimizerFacts("Adam", foreign=foreign)

    (found,) = findings_of(UnregisteredModule(), trace_of(events=(event(),), optimizer=optimizer))

    assert found.severity is expected


def test_the_same_attribute_is_told_once() -> None:
    trace = trace_of(events=(event(), event()))

    (found,) = findings_of(UnregisteredModule(), trace)

    assert found.message == "layers (list of Linear) hides 816 trainable weights from the model"


def test_without_the_event_there_is_nothing_to_say() -> None:
    assert findings_of(UnregisteredModule(), trace_of()) == ()


def test_gradlint_s_own_optimizer_was_given_nothing_by_hand() -> None:
    probe = OptimizerFacts("Adam", foreign=6, probe=True)

    (found,) = findings_of(UnregisteredModule(), trace_of(events=(event(),), optimizer=probe))

    assert found.severity is Severity.ERROR


def test_a_result_of_a_parameter_is_said_to_be_none() -> None:
    (found,) = findings_of(
        UnregisteredModule(),
        trace_of(events=(event(attribute="scale", container="tensor", kind="Parameter"),)),
    )

    assert found.message.startswith("scale (computed from a Parameter, and none itself) hides")
    assert "wrap the result" in found.help


def leaf(**attributes: object) -> Operation:
    return Operation(0, "input", "input", shape=(48, 32), attributes=attributes)


def embedding(number: int = 1) -> Operation:
    return Operation(number, "embedding", "", "embed", parameters=("embed.weight",))


def op(number: int, kind: str, *inputs: int, **more: object) -> Operation:
    return Operation(number, kind, kind, "fc", inputs, **more)  # type: ignore[arg-type]


def tensor_trace(*operations: Operation, entries: int = 1536, steps: int = 3) -> Trace:
    seen = Event("plain-tensor", module="", detail={"attribute": "w", "parameters": entries})
    return trace_of(observe("loss", "", [1.0] * steps), operations=operations, events=(seen,))


W = leaf(attribute="w")
MEETS = (W, embedding(), op(2, "index", 0), op(3, "mul", 2, 1))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(tensor_trace(*MEETS), True, id="a-table-that-multiplies-another"),
        pytest.param(tensor_trace(W, op(1, "mul", 0, parameters=("a",))), True, id="a-parameter"),
        pytest.param(
            tensor_trace(W, embedding(), op(2, "concat", 0, 1)), True, id="a-token-put-in-front"
        ),
        pytest.param(tensor_trace(*MEETS, steps=2), False, id="too-few-steps"),
        pytest.param(tensor_trace(*MEETS, entries=1), False, id="a-multiplier"),
        pytest.param(tensor_trace(leaf(attribute="v"), *MEETS[1:]), False, id="another-leaf"),
        pytest.param(
            tensor_trace(replace(W, in_loss=True), *MEETS[1:]), False, id="weights-of-a-loss"
        ),
        pytest.param(tensor_trace(W, op(1, "mul", 0)), False, id="times-a-constant"),
        pytest.param(tensor_trace(W, op(1, "mul", 0, 0)), False, id="its-square"),
        pytest.param(
            tensor_trace(
                W, op(1, "sin", 0), op(2, "linear", 1, parameters=("fc.weight",)),
                op(3, "mul", 0, 2),
            ),
            False,
            id="collocation-points",
        ),
        pytest.param(
            tensor_trace(W, op(1, "linear", 0, parameters=("fc.weight",))), False,
            id="what-a-first-layer-reads",
        ),
        pytest.param(
            tensor_trace(*MEETS, op(4, "linear", 3, parameters=("fc.weight",))), True,
            id="met-before-the-next-layer",
        ),
        pytest.param(
            tensor_trace(*MEETS, op(4, "linear", 2)), True, id="a-matrix-of-nobody-reads-it-too"
        ),
    ],
)  # fmt: skip
def test_plain_tensors_that_act_as_weights_are_an_error(trace: Trace, flagged: bool) -> None:
    found = findings_of(UnregisteredModule(), trace)

    assert bool(found) is flagged
    if found:
        assert "w (a tensor of 1536 entries, no nn.Parameter)" in found[0].message
        assert "up to step 3" in found[0].message


def made_trace(*operations: Operation, unread: tuple[int, ...] = (9, 9), steps: int = 3) -> Trace:
    seen = Event("made-anew", module="", detail={"shapes": [[48, 32]], "forwards": 3})
    return trace_of(
        observe("loss", "", [1.0] * steps),
        operations=operations,
        parameters=[ParameterFacts("net.weight", unread), ParameterFacts("embed.weight", (50, 32))],
        events=(seen,),
    )


MADE = (leaf(parameter=True), embedding(), op(2, "transpose", 0), op(3, "matmul", 1, 2))


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(made_trace(*MADE), True, id="a-layer-behind-an-embedding"),
        pytest.param(made_trace(*MADE, steps=2), False, id="too-few-steps"),
        pytest.param(made_trace(leaf(), *MADE[1:]), False, id="no-parameter"),
        pytest.param(
            made_trace(replace(MADE[0], shape=(3, 3)), *MADE[1:]), False, id="another-shape"
        ),
        pytest.param(made_trace(*MADE[:3], op(3, "add", 1, 2)), False, id="a-prompt"),
        pytest.param(made_trace(*MADE, unread=(48, 32)), False, id="a-copy-of-a-layer"),
        pytest.param(
            made_trace(MADE[0], op(1, "matmul", 0), op(2, "linear", 1, parameters=("a",))), False,
            id="a-random-layer-on-the-data",
        ),
    ],
)  # fmt: skip
def test_layers_made_anew_are_an_error(trace: Trace, flagged: bool) -> None:
    found = findings_of(UnregisteredModule(), trace)

    assert [f.message for f in found] == (
        [
            "forward makes layers of its own, with other weights at every call (48 × 32): nothing "
            "that they learn is kept"
        ]
        if flagged
        else []
    )


def test_a_read_parameter_of_that_shape_is_no_original() -> None:
    reads = op(4, "linear", 3, parameters=("net.weight",))

    assert findings_of(UnregisteredModule(), made_trace(*MADE, reads, unread=(48, 32)))
