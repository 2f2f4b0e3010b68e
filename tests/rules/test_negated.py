"""GL609 of a loss whose sign is turned round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.loss_not_decreasing import LossNotDecreasing
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    LoopFacts,
    LossFacts,
    OptimizerFacts,
    ParameterFacts,
    ScalerFacts,
    TensorFacts,
    Trace,
)

LABELS = TensorFacts("target", (32,), "int64", 0, 9, unique=10)
LOSS = LossFacts("cross_entropy", classes=10, target=LABELS, operation=2)
HELD = ParameterFacts("0.weight", (10, 8), module="0", in_optimizer=True)
LOOP = LoopFacts(steps=40, backwards=40, optimizers=("Adam",))
LAYERS = (
    Operation(0, "linear", "linear", "0", parameters=("0.weight",)),
    Operation(1, "log_softmax", "log_softmax", inputs=(0,), in_loss=True),
    Operation(2, "nll", "nll", inputs=(1,), in_loss=True),
)
SUNK = [-2.4 - 0.2 * i for i in range(41)]


def then(kind: str, *, at: int = 3, inputs: tuple[int, ...] = (2,), **more: Any) -> Operation:
    return Operation(at, kind, kind, inputs=inputs, in_loss=True, attributes=more)


NEGATED = (*LAYERS, then("neg"))


def trace(
    losses: list[float] = SUNK,
    *,
    operations: tuple[Operation, ...] = NEGATED,
    loss: LossFacts = LOSS,
    parameter: ParameterFacts = HELD,
    more: tuple[LossFacts, ...] = (),
    **facts: Any,
) -> Trace:
    known: dict[str, Any] = {"optimizer": OptimizerFacts("Adam"), "loop": LOOP, **facts}
    return trace_of(
        observe("loss", "", losses[:1], kind="model", step=0),
        observe("loss", "", losses[1:], kind="model"),
        parameters=(parameter,),
        operations=operations,
        losses=(loss, *more),
        targets=(LABELS,),
        **known,
    )


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(), id="negated"),
        pytest.param(trace(loop=None), id="in-a-check"),
        pytest.param(trace(operations=(*LAYERS, then("scale", scalar=-1.0))), id="times-minus-one"),
        pytest.param(
            trace(operations=(*NEGATED, then("scale", at=4, inputs=(3,), scalar=0.5))),
            id="negated-and-halved",
        ),
        pytest.param(
            trace(operations=(*LAYERS, then("mean"), then("neg", at=4, inputs=(3,)))),
            id="the-mean-negated",
        ),
    ],
)
def test_a_loss_that_is_driven_up_is_an_error(observed: Trace) -> None:
    (found,) = findings_of(LossNotDecreasing(), observed)

    assert found.severity is Severity.ERROR
    assert found.message == (
        "the loss is a cross_entropy with its sign turned round: to descend it took the "
        "cross_entropy from 2.4 to 9.5 in 40 steps"
    )
    assert "sign" in found.help


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(
            trace(operations=(*NEGATED, then("neg", at=4, inputs=(3,)))), id="negated-twice"
        ),
        pytest.param(trace(operations=(*LAYERS, then("scale", scalar=2.0))), id="not-negated"),
        pytest.param(trace(operations=(*LAYERS, then("scale"))), id="an-unknown-factor"),
        pytest.param(trace(operations=(*LAYERS, then("mask"))), id="weighed-by-data"),
        pytest.param(
            trace(operations=(*NEGATED, then("add", at=4, inputs=(3, 0)))), id="one-of-two-terms"
        ),
        pytest.param(
            trace(optimizer=OptimizerFacts("Adam", groups=({"maximize": True},))), id="climbed"
        ),
        pytest.param(trace(optimizer=None), id="no-optimizer"),
        pytest.param(trace(optimizer=OptimizerFacts("Adam", probe=True)), id="our-own-optimizer"),
        pytest.param(trace(pretrained=True), id="unlearned"),
        pytest.param(trace(parameter=replace(HELD, in_optimizer=False)), id="a-judge-at-rest"),
        pytest.param(trace(loop=replace(LOOP, backwards=80)), id="two-losses-a-step"),
        pytest.param(trace(loop=replace(LOOP, streams=2)), id="two-streams"),
        pytest.param(trace(loop=replace(LOOP, optimizers=("Adam", "SGD"))), id="two-optimizers"),
        pytest.param(trace(loop=replace(LOOP, by_hand=True)), id="climbed-by-hand"),
        pytest.param(
            trace(operations=(*NEGATED, then("scale", at=4, inputs=(3,)))),
            id="negated-times-something",
        ),
        pytest.param(
            trace(operations=(*NEGATED, then("mask", at=4, inputs=(3,)))), id="negated-and-weighed"
        ),
        pytest.param(trace(more=(replace(LOSS, operation=1),)), id="two-losses"),
        pytest.param(trace(loss=replace(LOSS, operation=None)), id="a-loss-that-raised"),
        pytest.param(trace(loop=replace(LOOP, scaler=ScalerFacts(1.0, 1.0))), id="scaled"),
        pytest.param(trace(operations=NEGATED[1:]), id="no-layer"),
        pytest.param(trace(loss=replace(LOSS, kind="nll")), id="a-sign-of-its-own"),
        pytest.param(trace(loss=replace(LOSS, target=None)), id="no-targets"),
        pytest.param(
            trace(operations=(*NEGATED, then("mean", at=4, inputs=(0,)))), id="another-number"
        ),
    ],
)
def test_what_is_driven_up_for_a_reason_is_none(observed: Trace) -> None:
    assert findings_of(LossNotDecreasing(), observed) == ()


def test_a_distance_by_hand_has_the_sign_of_what_follows_its_square() -> None:
    layer = LAYERS[0]
    target = TensorFacts("target", (32, 1), "float32", -2, 2, std=1.0)
    loss = LossFacts("mse", target=target, operation=1)
    difference = Operation(1, "shift", "sub", inputs=(0,), in_loss=True, missing=1)
    squared = (layer, difference, then("neg", at=2, inputs=(1,)), then("pow", at=3, inputs=(2,)))
    rising = [-1.0 - 0.2 * i for i in range(41)]

    sound = trace(rising, operations=squared, loss=loss)
    turned = trace(rising, operations=(*squared, then("neg", at=4, inputs=(3,))), loss=loss)

    assert findings_of(LossNotDecreasing(), sound) == ()
    assert [f.severity for f in findings_of(LossNotDecreasing(), turned)] == [Severity.ERROR]
