"""What rules ask of a watched training loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.graph import Operation
from gradlint.rules._loop import (
    by_stream,
    cleared,
    keeps,
    learned,
    left_alone,
    moved,
    new_leaf,
    nobody_trains,
    of_stream,
    roots,
    same_model,
    twin,
    without_the_model,
)
from gradlint.testing import observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, OptimizerFacts, ParameterFacts, Trace

FALLING = [2.0 * 0.9**i for i in range(20)]
MODELS = (ModuleFacts("", "models", leaf=False), ModuleFacts("netD", "D"), ModuleFacts("netG", "G"))


def image(
    losses: list[float] = FALLING,
    *,
    foreign: int = 1,
    held: bool = False,
    **facts: Any,
) -> Trace:
    """A loop whose optimizer holds a tensor that no model has."""
    known: dict[str, Any] = {
        "loop": LoopFacts(steps=20, backwards=20),
        "optimizer": OptimizerFacts("Adam", foreign=foreign),
    }
    return trace_of(
        observe("loss", "", losses),
        parameters=[ParameterFacts("fc.weight", in_optimizer=held)],
        **(known | facts),
    )


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(image(), True, id="the-loss-answers"),
        pytest.param(image(loop=None), False, id="no-loop"),
        pytest.param(image(optimizer=None), False, id="no-optimizer"),
        pytest.param(image(foreign=0), False, id="nothing-foreign"),
        pytest.param(image(held=True), False, id="a-part-of-the-model-too"),
        pytest.param(image([]), False, id="loss-unknown"),
        pytest.param(image([2.0] * 20), False, id="the-loss-stays"),
    ],
)
def test_a_loop_without_the_model_holds_other_tensors_that_the_loss_answers(
    trace: Trace, expected: bool
) -> None:
    assert without_the_model(trace) is expected


def test_several_models_have_a_root_each() -> None:
    loop = LoopFacts()

    assert roots(trace_of(modules=MODELS, loop=loop)) == {"netD", "netG"}
    assert roots(trace_of(modules=MODELS[1:], loop=loop)) == {"netD", "netG"}
    assert roots(trace_of(modules=MODELS)) == {""}
    assert roots(trace_of(loop=loop)) == {""}
    assert roots(trace_of(modules=[ModuleFacts("", "Net"), *MODELS[1:]], loop=loop)) == {""}


def test_paths_belong_to_one_of_several_models() -> None:
    several, one = trace_of(modules=MODELS, loop=LoopFacts()), trace_of(modules=MODELS)

    assert same_model(several, "netD.a", "netD.b")
    assert not same_model(several, "netD.a", "netG.a")
    assert same_model(one, "netD.a", "netG.a")


def pair(*, trained: bool = True, held: bool = False, width: int = 8) -> Trace:
    return trace_of(
        modules=(*MODELS, ModuleFacts("netD.fc", "Linear"), ModuleFacts("netG.fc", "Linear")),
        parameters=[
            ParameterFacts("netD.fc.weight", (8, 8), module="netD.fc", in_optimizer=held),
            ParameterFacts("netG.fc.weight", (width, 8), module="netG.fc", requires_grad=trained),
        ],
        loop=LoopFacts(),
    )


def test_a_twin_is_another_whole_model_of_the_same_shapes_that_is_trained() -> None:
    assert twin(pair(), "netD") == "netG"
    assert twin(pair(trained=False), "netD") is None
    assert twin(pair(width=4), "netD") is None
    assert twin(pair(), "") is None


def test_a_part_of_a_model_has_no_twin() -> None:
    trace = pair()
    weight = trace.parameters["netG.fc.weight"]
    bare = replace(weight, path="netG.weight", module="netG")

    assert twin(trace.but(parameters={**trace.parameters, "netG.weight": bare}), "netD.fc") is None
    alone = {p.path: p for p in (trace.parameters["netD.fc.weight"], bare)}
    assert twin(trace.but(parameters=alone), "netD.fc") is None


def test_a_model_that_no_optimizer_holds_is_left_alone() -> None:
    assert left_alone(pair(), "netD")
    assert not left_alone(pair(held=True), "netD")
    assert not left_alone(pair(), "netD.fc")


def test_any_step_counts_for_what_learned_moved_or_was_kept() -> None:
    trace = trace_of(
        observe("gradient_norm", "a", [0.0, 0.5, 0.0]),
        observe("gradient_norm", "b", [0.0, 0.0]),
        observe("update_to_weight_ratio", "a", [0.0, 1e-3]),
        observe("update_to_weight_ratio", "b", [0.0]),
        observe("weight_norm", "a", [1.0, 1.1]),
        observe("weight_norm", "b", [1.0, 1.0 + 1e-7]),
    )

    assert [f(trace, p) for f in (learned, moved, keeps) for p in ("a", "b")] == [
        *(True, False),
        *(True, False),
        *(False, True),
    ]


@pytest.mark.parametrize(
    ("left", "seen", "expected"),
    [
        ([1.0, 2.0], [0.0, 0.0], True),
        ([1.0, 2.0], [0.0, 0.5], False),
        ([1.0, 0.0], [0.0, 0.0], False),
        ([], [0.0], False),
    ],
)
def test_gradients_are_cleared_where_every_step_saw_none_of_what_was_left(
    left: list[float], seen: list[float], expected: bool
) -> None:
    trace = trace_of(
        observe("backward_gradient_norm", "", left), observe("total_gradient_norm", "", seen)
    )

    assert cleared(trace) is expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({}, False, id="check"),
        pytest.param({"loop": LoopFacts(backwards=3)}, True, id="gradients-are-looked-at"),
        pytest.param({"loop": LoopFacts(backwards=3, by_hand=True)}, False, id="by-hand"),
        pytest.param(
            {"loop": LoopFacts(backwards=3, idle_optimizers=("SGD",))}, False, id="an-idle-one"
        ),
        pytest.param(
            {"loop": LoopFacts(backwards=3), "optimizer": OptimizerFacts("SGD")}, False, id="one"
        ),
        pytest.param(
            {"loop": LoopFacts(), "optimizer": OptimizerFacts("SGD")}, True, id="no-backward"
        ),
    ],
)
def test_nobody_trains_without_backward_or_anyone_to_step(
    facts: dict[str, Any], expected: bool
) -> None:
    assert nobody_trains(trace_of(**facts)) is expected


def test_observations_are_grouped_by_whose_step_they_are() -> None:
    rates = observe("learning_rate", "", [0.1, 0.2, 0.3])
    trace = trace_of(
        observe("stream_loss", "netD", [1.0], step=1),
        observe("stream_loss", "netG:2", [1.0], step=2),
        modules=MODELS,
    )

    found = by_stream(trace, rates)

    assert {name: [o.step for o in seen] for name, seen in found.items()} == {
        "netD": [1],
        "netG:2": [2],
        "": [3],
    }
    assert of_stream(trace, "netG:2") == ("netG", " of netG:2")
    assert of_stream(trace, "policy") == ("", " of policy")
    assert of_stream(trace, "") == ("", "")


def from_a_new_tensor(*, trainable: bool = True, cleared: bool = False) -> Trace:
    norms = [
        *observe("backward_gradient_norm", "", [2.0] * 3),
        *observe("total_gradient_norm", "", [0.0] * 3),
    ]
    return trace_of(
        norms if cleared else [],
        operations=(Operation(0, "input", ""), Operation(1, "sum", "", None, (0,), in_loss=True)),
        parameters=[ParameterFacts("fc.weight", requires_grad=trainable, gradient="missing")],
        optimizer=OptimizerFacts("SGD"),
        loop=LoopFacts(steps=9, backwards=9),
    )


def test_a_new_leaf_is_what_a_loss_starts_from_in_place_of_the_model() -> None:
    leaf = new_leaf(from_a_new_tensor())

    assert leaf is not None
    assert leaf.kind == "input"
    assert new_leaf(from_a_new_tensor(trainable=False)) is None
    assert new_leaf(from_a_new_tensor(cleared=True)) is None
