from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.rules.foreign_parameters import ForeignParameters
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    EmptyFacts,
    LoopFacts,
    ModuleFacts,
    OptimizerFacts,
    OriginalFacts,
    ParameterFacts,
    StrangerFacts,
    Trace,
)


def trace(
    foreign: int, *held: bool, probe: bool = False, requires_grad: bool = True, **facts: object
) -> Trace:
    parameters = [
        ParameterFacts(f"{i}.weight", (4, 4), requires_grad=requires_grad, in_optimizer=h)
        for i, h in enumerate(held)
    ]
    optimizer = OptimizerFacts("SGD", foreign=foreign, probe=probe)
    return trace_of(parameters=parameters, optimizer=optimizer, **facts)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(2, False, False), Severity.ERROR, id="another-model's"),
        pytest.param(trace(1, True, False), Severity.ERROR, id="a-layer-replaced"),
        pytest.param(trace(1, True, True), Severity.NOTE, id="a-loss-with-parameters"),
        pytest.param(trace(1, True, False, pretrained=True), Severity.WARNING, id="head-only"),
        pytest.param(trace(0, False, False), None, id="nothing-foreign"),
        pytest.param(trace(2, False, probe=True), None, id="our-own-optimizer"),
        pytest.param(trace_of(), None, id="no-optimizer"),
    ],
)
def test_foreign_parameters_are_judged_by_what_is_lacking(observed, expected) -> None:
    found = findings_of(ForeignParameters(), observed)

    assert [f.severity for f in found] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (
            trace(2, False, False),
            "the optimizer holds 2 parameters that the model does not have and none of its own",
        ),
        (
            trace(1, True, False),
            "the optimizer holds 1 parameter that the model does not have and lacks 1 of its "
            "trainable ones",
        ),
    ],
)
def test_the_message_counts(observed, message) -> None:
    assert findings_of(ForeignParameters(), observed)[0].message == message


def watched(
    losses: list[float],
    *parameters: ParameterFacts,
    foreign: int = 1,
    roots: tuple[str, ...] = ("",),
    moved: tuple[str, ...] = (),
) -> Trace:
    return trace_of(
        observe("loss", "", losses),
        *[observe("update_to_weight_ratio", path, [1e-3] * 3) for path in moved],
        modules=[ModuleFacts(root, "Net") for root in roots],
        parameters=parameters,
        optimizer=OptimizerFacts("Adam", foreign=foreign),
        loop=LoopFacts(steps=12, backwards=12),
    )


LOST = ParameterFacts("fc.weight", (4, 4), in_optimizer=False)
HELD = ParameterFacts("out.weight", (4, 4), in_optimizer=True)
JUDGE = ParameterFacts("vgg.0.weight", (4, 4), in_optimizer=False)
MINE = ParameterFacts("net.0.weight", (4, 4), in_optimizer=True)
NOISY = [2.0, 1.9, 2.1] * 4
FALLING = [2.0 * 0.8**i for i in range(12)]
RISING = [1.0 + 0.3 * i for i in range(12)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(watched(NOISY, LOST), Severity.ERROR, id="another-model's"),
        pytest.param(watched(FALLING, LOST), Severity.NOTE, id="an-image-is-optimized"),
        pytest.param(watched(RISING, LOST), Severity.NOTE, id="an-attack"),
        pytest.param(watched(FALLING, LOST, HELD), Severity.ERROR, id="a-layer-replaced"),
        pytest.param(
            watched(NOISY, LOST, HELD, moved=("fc.weight",)), Severity.NOTE, id="updated-by-hand"
        ),
        pytest.param(
            watched(NOISY, MINE, JUDGE, roots=("net", "vgg")), Severity.NOTE, id="a-judge-beside"
        ),
        pytest.param(watched(NOISY, LOST, foreign=0), None, id="nothing-foreign"),
    ],
)
def test_in_a_loop_the_loss_tells_whether_foreign_parameters_are_meant(observed, expected) -> None:
    found = findings_of(ForeignParameters(), observed)

    assert [f.severity for f in found] == ([] if expected is None else [expected])


def test_a_teacher_without_gradients_is_not_lacked() -> None:
    teacher = ParameterFacts("teacher.weight", (4, 4), in_optimizer=False, gradient="missing")

    (found,) = findings_of(ForeignParameters(), watched(NOISY, HELD, teacher))

    assert found.severity is Severity.NOTE


@pytest.mark.parametrize(
    ("steps", "stranger", "flagged"),
    [
        pytest.param(0, StrangerFacts("Adam", 10, 6), True, id="ten-steps-for-nothing"),
        pytest.param(0, StrangerFacts("Adam", 9, 6), False, id="too-few-steps"),
        pytest.param(1, StrangerFacts("Adam", 40, 6), False, id="the-model-is-updated"),
    ],
)
def test_an_optimizer_that_never_has_anything_to_apply_is_foreign(steps, stranger, flagged) -> None:
    loop = LoopFacts(steps=steps, backwards=40, strangers=(stranger,))

    found = findings_of(ForeignParameters(), trace_of(loop=loop))

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])


def test_its_message_says_what_it_holds() -> None:
    loop = LoopFacts(backwards=40, strangers=(StrangerFacts("SGD", 40, 6),))

    (found,) = findings_of(ForeignParameters(), trace_of(loop=loop))

    assert found.message == (
        "SGD stepped 40 times after the model's backward passes and had nothing to apply: it "
        "holds 6 parameters that the model does not have and that never had a gradient"
    )


COPIED = OriginalFacts("Adam", 40, 6, "Learner", 160)


def test_an_optimizer_whose_model_s_copies_are_trained_is_foreign() -> None:
    loop = LoopFacts(steps=200, backwards=200, originals=(COPIED,))

    (found,) = findings_of(ForeignParameters(), trace(6, True, loop=loop))

    assert found.severity is Severity.ERROR
    assert found.message == (
        "after 40 steps Adam had moved none of the 6 parameters it holds: 160 copies of their "
        "Learner were called and trained in its place"
    )


def test_a_few_steps_of_an_original_tell_nothing() -> None:
    loop = LoopFacts(steps=200, backwards=200, originals=(replace(COPIED, steps=9),))

    found = findings_of(ForeignParameters(), trace(6, True, loop=loop))

    assert [f.severity for f in found] == [Severity.NOTE]


def test_an_original_is_judged_where_no_optimizer_of_the_watched_is_known() -> None:
    seen = trace_of(loop=LoopFacts(steps=200, originals=(COPIED,)))

    assert ForeignParameters().skip_reason(seen) is None
    assert ForeignParameters().skip_reason(trace_of(loop=LoopFacts(steps=200)))


EMPTY = EmptyFacts("AdamW", 13, 168, 34, foreign=18)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(EMPTY, Severity.ERROR, id="of-a-model-that-was-replaced"),
        pytest.param(replace(EMPTY, steps=10, seen=3), Severity.ERROR, id="just-enough"),
        pytest.param(replace(EMPTY, steps=9), Severity.NOTE, id="a-few-steps"),
        pytest.param(replace(EMPTY, seen=2), Severity.NOTE, id="hardly-looked-at"),
        pytest.param(replace(EMPTY, foreign=0), Severity.NOTE, id="of-the-model-itself"),
    ],
)
def test_one_that_took_over_and_holds_nothing_of_the_models(
    seen: EmptyFacts, expected: Severity
) -> None:
    loop = LoopFacts(steps=180, backwards=180, empty=(seen,))

    (found,) = findings_of(ForeignParameters(), trace(6, True, loop=loop))

    assert found.severity is expected
    if expected is Severity.ERROR:
        assert found.message == (
            f"AdamW made {seen.steps} steps from step 13 on: none of the 18 parameters it holds "
            f"had a gradient at any of the {seen.seen} looked at; backward goes to a model that "
            "does not have them"
        )
