"""What rules ask of an optimizer and of the parameters it holds."""

from __future__ import annotations

import pytest

from gradlint.rules._optimizer import (
    given,
    is_copy,
    lineage,
    maximizes,
    rescales,
    steps,
    topmost,
)
from gradlint.testing import trace_of
from gradlint.trace import LoopFacts, OptimizerFacts, ParameterFacts

SGD = OptimizerFacts("SGD")
PROBE = OptimizerFacts("Adam", probe=True)


def test_only_the_users_own_optimizer_is_given() -> None:
    assert given(trace_of(optimizer=SGD)) is SGD
    assert given(trace_of(optimizer=PROBE)) is None
    assert given(trace_of()) is None


def test_updates_by_hand_are_steps_of_the_user() -> None:
    assert steps(trace_of(optimizer=SGD))
    assert steps(trace_of(loop=LoopFacts(by_hand=True)))
    assert not steps(trace_of(loop=LoopFacts()))
    assert not steps(trace_of(optimizer=PROBE))


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (SGD, False),
        (OptimizerFacts("AdamW"), True),
        (OptimizerFacts("Adam+SGD"), True),
        (PROBE, False),
        (None, False),
    ],
)
def test_adam_and_its_kin_rescale(optimizer: OptimizerFacts | None, expected: bool) -> None:
    assert rescales(trace_of(optimizer=optimizer)) is expected


def test_one_group_that_climbs_is_enough() -> None:
    climbs = OptimizerFacts("SGD", groups=({"lr": 0.1}, {"lr": 0.1, "maximize": True}))

    assert maximizes(trace_of(optimizer=climbs))
    assert not maximizes(trace_of(optimizer=SGD))
    assert not maximizes(trace_of())


def layers(path: str, *names: str, size: int = 4) -> list[ParameterFacts]:
    return [ParameterFacts(f"{path}.{n}.weight", (size, size), module=f"{path}.{n}") for n in names]


THREE = ("a", "b", "c")


@pytest.mark.parametrize(
    ("path", "mine", "others", "expected"),
    [
        pytest.param("ema", layers("ema", *THREE), layers("net", *THREE), True, id="a-copy"),
        pytest.param(
            "ema", layers("ema", *THREE), layers("net", *THREE, "d"), False, id="a-part-of-another"
        ),
        pytest.param(
            "ema", layers("ema", *THREE), layers("net", *THREE, size=8), False, id="other-shapes"
        ),
        pytest.param("ema", layers("ema", "a"), layers("net", "a"), False, id="a-single-layer"),
        pytest.param(
            "blocks.0", layers("blocks.0", *THREE), layers("blocks.1", *THREE), False, id="numbered"
        ),
        pytest.param("ema", layers("ema", *THREE), [], False, id="alone"),
    ],
)
def test_a_copy_holds_the_same_parameters_elsewhere(
    path: str, mine: list[ParameterFacts], others: list[ParameterFacts], expected: bool
) -> None:
    assert is_copy(path, mine, others) is expected


def test_parameters_are_grouped_by_the_highest_module_of_their_own() -> None:
    mine = [*layers("encoder", "a", "b"), *layers("net.head", "a")]

    groups = topmost(mine, layers("net", "body"))

    assert {path: len(group) for path, group in groups.items()} == {"encoder": 2, "net.head": 1}


def test_a_parameter_beside_others_of_its_module_stands_for_itself() -> None:
    weight = ParameterFacts("fc.weight", module="fc")
    bias = ParameterFacts("fc.bias", module="fc")

    assert topmost([bias], [weight]) == {"fc": [bias]}


def test_a_lineage_begins_at_the_model() -> None:
    assert lineage("a.b") == ["", "a", "a.b"]
    assert lineage("") == [""]
