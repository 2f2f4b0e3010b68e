from __future__ import annotations

from collections.abc import Iterable

import pytest

from gradlint.finding import Severity
from gradlint.rules.not_in_optimizer import NotInOptimizer
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    LoopFacts,
    ModuleFacts,
    Observation,
    OptimizerFacts,
    ParameterFacts,
    Trace,
)

SGD = OptimizerFacts("SGD")


def layer(path: str, *, held: bool | None, size: int = 8, **more: object) -> list[ParameterFacts]:
    return [
        ParameterFacts(f"{path}.{name}", shape, module=path, in_optimizer=held, **more)  # type: ignore[arg-type]
        for name, shape in (("weight", (size, size)), ("bias", (size,)))
    ]


def trace(
    *layers: Iterable[ParameterFacts], optimizer: OptimizerFacts | None = SGD, **facts: object
) -> Trace:
    parameters = [p for group in layers for p in group]
    modules = [ModuleFacts(p, "Linear", i, 1) for i, p in enumerate(dict.fromkeys(
        p.module for p in parameters))]  # fmt: skip
    return trace_of(parameters=parameters, modules=modules, optimizer=optimizer, **facts)


def severities(observed: Trace) -> list[tuple[Severity, str | None]]:
    return [(f.severity, f.module) for f in findings_of(NotInOptimizer(), observed)]


HEAD_LOST = (layer("body", held=True), layer("head", held=False))
BODY_LOST = (layer("body", held=False), layer("head", held=True))


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(*HEAD_LOST), [(Severity.ERROR, "head")], id="head-forgotten"),
        pytest.param(trace(*BODY_LOST), [(Severity.ERROR, "body")], id="fresh-body-left-out"),
        pytest.param(
            trace(*BODY_LOST, pretrained=True), [(Severity.NOTE, "body")], id="pretrained-body"
        ),
        pytest.param(
            trace(*HEAD_LOST, pretrained=True), [(Severity.WARNING, "head")], id="pretrained-head"
        ),
        pytest.param(
            trace(layer("generator", held=True), layer("discriminator", held=False)),
            [(Severity.NOTE, "discriminator")],
            id="adversary",
        ),
        pytest.param(
            trace(layer("body", held=True), layer("head", held=False, requires_grad=False)),
            [],
            id="frozen",
        ),
        pytest.param(
            trace(layer("body", held=True), layer("head", held=False, gradient="missing")),
            [],
            id="without-gradient-is-another-rule",
        ),
        pytest.param(trace(layer("body", held=True)), [], id="all-held"),
        pytest.param(trace(layer("body", held=None), optimizer=None), [], id="no-optimizer"),
        pytest.param(
            trace(*HEAD_LOST, optimizer=OptimizerFacts("Adam", probe=True)), [], id="our-own"
        ),
    ],
)
def test_what_gets_gradients_is_to_be_in_the_optimizer(observed, expected) -> None:
    assert severities(observed) == expected


def test_a_copy_of_a_trained_part_is_a_note() -> None:
    parts = [
        part
        for name, held in (("online", True), ("slow", False))
        for part in (layer(f"{name}.a", held=held), layer(f"{name}.b", held=held))
    ]

    assert severities(trace(*parts)) == [(Severity.NOTE, "slow")]


def test_single_parameters_are_named() -> None:
    weight, bias = layer("head", held=True)
    lost = ParameterFacts(bias.path, bias.shape, module="head", in_optimizer=False)

    (found,) = findings_of(NotInOptimizer(), trace([weight, lost]))

    assert found.parameter == "head.bias"
    assert found.message == "no optimizer holds 1 trainable parameter of head that got gradients"


LOOP = LoopFacts(steps=40, backwards=40)
BY_OTHERS = [
    *observe("update_to_weight_ratio", "head.weight", [1e-3] * 3),
    *observe("weight_norm", "head.bias", [1.0, 1.1, 1.2]),
]
NOISY = (2.0, 1.9, 2.1, 2.0, 1.9, 2.1, 2.0, 1.9, 2.1, 2.0, 1.9, 2.1)
FALLING = tuple(2.0 * 0.8**i for i in range(12))


def loop(
    observed: Trace,
    *seen: list[Observation],
    optimizer: OptimizerFacts = SGD,
    several: bool = False,
    pretrained: bool = False,
) -> Trace:
    """`observed` as that of a watched loop, of one model or of several."""
    from dataclasses import replace

    root = {} if several else {"": ModuleFacts("", "Net", 9, leaf=False)}
    facts = replace(observed.facts, loop=LOOP, optimizer=optimizer, pretrained=pretrained)
    return observed.but(
        observations=[o for group in seen for o in group],
        modules={**root, **observed.modules},
        facts=facts,
    )


NOTHING_HELD = trace(layer("body", held=False), layer("head", held=False))
FOREIGN = OptimizerFacts("LBFGS", foreign=1)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(loop(trace(*HEAD_LOST)), [(Severity.ERROR, "head")], id="head-forgotten"),
        pytest.param(
            loop(trace(*BODY_LOST), several=True), [(Severity.ERROR, "body")], id="a-fresh-encoder"
        ),
        pytest.param(loop(trace(*HEAD_LOST), BY_OTHERS), [], id="moved-by-hand"),
        pytest.param(
            loop(trace(*HEAD_LOST), several=True, pretrained=True),
            [(Severity.NOTE, "head")],
            id="a-perceptual-loss",
        ),
        pytest.param(
            loop(NOTHING_HELD, observe("loss", "", FALLING), optimizer=FOREIGN),
            [],
            id="an-image-is-optimized",
        ),
        pytest.param(
            loop(NOTHING_HELD, observe("loss", "", NOISY), optimizer=FOREIGN),
            [(Severity.ERROR, "")],
            id="the-model-was-built-anew",
        ),
    ],
)
def test_in_a_loop_what_moves_is_trained_and_what_judges_is_not(observed, expected) -> None:
    assert severities(observed) == expected


ONLINE = [*layer("online.a", held=False), *layer("online.b", held=False)]
TARGET = [
    *layer("target.a", held=True, gradient="missing"),
    *layer("target.b", held=True, gradient="missing"),
]
LEARNED = observe("gradient_norm", "target.a.weight", [0.5])


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(loop(trace(ONLINE, TARGET)), Severity.ERROR, id="the-target-s-optimizer"),
        pytest.param(loop(trace(ONLINE, TARGET), LEARNED), Severity.NOTE, id="master-weights"),
        pytest.param(
            loop(trace(ONLINE, layer("target.a", held=True), layer("target.b", held=True))),
            Severity.NOTE,
            id="both-have-gradients",
        ),
        pytest.param(
            loop(trace(ONLINE, TARGET), optimizer=FOREIGN), Severity.NOTE, id="something-else"
        ),
        pytest.param(trace(ONLINE, TARGET), Severity.NOTE, id="one-pass-of-a-check"),
    ],
)
def test_an_optimizer_of_what_never_gets_a_gradient_is_the_wrong_one(observed, expected) -> None:
    assert severities(observed) == [(expected, "online")]


def test_a_name_is_no_excuse_for_an_optimizer_that_moves_nothing() -> None:
    critic = [*layer("critic.a", held=False), *layer("critic.b", held=False)]

    (found,) = findings_of(NotInOptimizer(), loop(trace(critic, TARGET)))

    assert found.severity is Severity.ERROR
    assert found.message == (
        "no optimizer holds 4 trainable parameters of critic that got gradients: none that it "
        "holds ever got one"
    )


SIDES = trace(layer("judge", held=True), layer("generator", held=False))
TEACHER = trace(
    layer("online.a", held=True), layer("online.b", held=True),
    layer("teacher.a", held=False), layer("teacher.b", held=False),
)  # fmt: skip


def turns(observed: Trace, alike: int, kinds: int = 2, **more: bool) -> Trace:
    from dataclasses import replace

    seen = loop(observed, **more)
    facts = LoopFacts(steps=40, backwards=40, alike=alike, optimizers=("Adam",) * kinds)
    return seen.but(facts=replace(seen.facts, loop=facts))


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(turns(SIDES, 2), Severity.ERROR, id="both-hold-the-judge"),
        pytest.param(turns(SIDES, 2, pretrained=True), Severity.WARNING, id="trained-before"),
        pytest.param(turns(SIDES, 0), Severity.NOTE, id="each-its-own"),
        pytest.param(turns(SIDES, 2, 3), Severity.NOTE, id="a-third-one"),
        pytest.param(turns(SIDES, 1, 1), Severity.NOTE, id="one"),
        pytest.param(turns(TEACHER, 2), Severity.NOTE, id="a-teacher-is-a-copy"),
        pytest.param(SIDES, Severity.NOTE, id="one-pass-of-a-check"),
    ],
)
def test_two_optimizers_of_one_side_leave_the_other_out(observed, expected) -> None:
    assert [severity for severity, _ in severities(observed)] == [expected]


def test_nothing_held_is_nothing_in_vain() -> None:
    beside = layer("judge", held=False, gradient="missing")

    (found,) = findings_of(NotInOptimizer(), loop(trace(layer("critic", held=False), beside)))

    assert found.severity is Severity.NOTE


ANEW = [
    ParameterFacts("head.weight", (8, 8), module="head", in_optimizer=False, since=5),
    ParameterFacts("head.bias", (8,), module="head", in_optimizer=False, since=5),
]
BOTH = ("head.weight", "head.bias")


def seen(metric: str, before: float, after: Iterable[float]) -> list[Observation]:
    """A metric of the head, of the layer there was up to step 4 and of the one since."""
    return [o for path in BOTH for o in observe(metric, path, [before] * 4 + [*after], start=1)]


GRADIENTS = seen("gradient_norm", 0.3, [0.5, 0.4, 0.6])
STANDING = seen("update_to_weight_ratio", 1e-3, [0.0, 0.0, 0.0])
SIZES = seen("weight_norm", 1.0, [2.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param((GRADIENTS, STANDING, SIZES), [(Severity.ERROR, "head")], id="it-stands"),
        pytest.param(
            (GRADIENTS, seen("update_to_weight_ratio", 0.0, [1e-3] * 3), SIZES), [], id="it-moves"
        ),
        pytest.param(
            (GRADIENTS, STANDING, seen("weight_norm", 2.0, [2.0, 1.9, 1.8])), [], id="by-hand"
        ),
        pytest.param(
            (seen("gradient_norm", 0.3, [0.0] * 3), STANDING, SIZES), [], id="no-gradient-since"
        ),
        pytest.param((GRADIENTS, seen("update_to_weight_ratio", 1e-3, []), SIZES), [], id="unseen"),
    ],
)
def test_a_layer_in_the_place_of_another_is_judged_by_its_own_steps(observed, expected) -> None:
    assert severities(loop(trace(layer("body", held=True), ANEW), *observed)) == expected


def test_a_layer_in_the_place_of_another_is_told_as_such() -> None:
    observed = loop(trace(layer("body", held=True), ANEW), GRADIENTS, STANDING, SIZES)

    (found,) = findings_of(NotInOptimizer(), observed)

    assert found.message == (
        "no optimizer holds 2 trainable parameters of head that got gradients: by step 5 they had "
        "replaced those that one held"
    )
