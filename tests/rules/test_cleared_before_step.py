from __future__ import annotations

from collections.abc import Sequence

import pytest

from gradlint.finding import Severity
from gradlint.rules.cleared_before_step import ClearedBeforeStep
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    DiscardedFacts,
    LoopFacts,
    ModuleFacts,
    OptimizerFacts,
    ParameterFacts,
    Trace,
)

GAN = ("netD", "netG") * 5
SGD = OptimizerFacts("SGD")


def trace(
    backward: Sequence[float],
    step: Sequence[float],
    *,
    streams: Sequence[str] = (),
    held: bool | None = True,
    optimizer: OptimizerFacts | None = SGD,
    by_hand: bool = False,
) -> Trace:
    return trace_of(
        observe("backward_gradient_norm", "", backward),
        observe("total_gradient_norm", "", step),
        *[observe("stream_loss", name, [1.0], step=s) for s, name in enumerate(streams, 1)],
        modules=[ModuleFacts(name, "Net") for name in dict.fromkeys(streams)],
        parameters=[ParameterFacts("weight", in_optimizer=held)],
        optimizer=optimizer,
        loop=LoopFacts(steps=50, backwards=50, by_hand=by_hand),
    )


def places(observed: Trace) -> list[str | None]:
    return [f.module for f in findings_of(ClearedBeforeStep(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace([2.0] * 5, [0.0] * 5), [""], id="cleared-before-every-step"),
        pytest.param(trace([2.0] * 5, [2.0] + [0.0] * 4), [""], id="the-first-is-not-the-step's"),
        pytest.param(trace([2.0] * 11, [0.0] * 10 + [1.0]), [""], id="but-one"),
        pytest.param(trace([float("inf")] * 4, [0.0] * 4), [""], id="non-finite-gradients"),
        pytest.param(
            trace([2.0] * 10, [0.0, 1.0] * 5, streams=GAN), ["netD"], id="one-side-of-a-gan"
        ),
        pytest.param(trace([2.0] * 5, [2.0] * 5), [], id="stepped"),
        pytest.param(trace([20.0] * 5, [1.0] * 5), [], id="clipped"),
        pytest.param(trace([2.0] * 3, [0.0] * 3), [], id="too-few-steps"),
        pytest.param(trace([0.0] * 5, [0.0] * 5), [], id="no-gradient-at-all"),
        pytest.param(trace([2.0] * 10, [0.0, 2.0] * 5), [], id="stepped-in-turn"),
        pytest.param(trace([2.0] * 10, [1.0] * 10, streams=GAN), [], id="gan"),
        pytest.param(trace([2.0] * 5, [0.0] * 5, by_hand=True), [], id="by-hand"),
        pytest.param(trace([2.0] * 5, [0.0] * 5, optimizer=None), [], id="no-optimizer"),
        pytest.param(trace([2.0] * 5, [0.0] * 5, held=False), [], id="another-model's-optimizer"),
        pytest.param(trace([], []), [], id="nothing-observed"),
    ],
)
def test_a_step_is_to_see_what_backward_left(observed, expected) -> None:
    assert places(observed) == expected


def test_the_message_gives_both_norms() -> None:
    (found,) = findings_of(ClearedBeforeStep(), trace([2.0] * 5, [0.0] * 5))

    assert found.severity is Severity.ERROR
    assert found.exact
    assert found.message == (
        "gradients were cleared between backward and step: 2 after backward, 0 in the step, at 4 "
        "of 4 observed steps"
    )


def test_a_check_has_no_loop_to_clear_in() -> None:
    assert ClearedBeforeStep().skip_reason(trace_of()) == "no training loop was watched"


def thrown(observed: int, steps: int, each: int) -> Trace:
    seen = DiscardedFacts(observed, steps, each)
    return trace_of(
        parameters=[ParameterFacts("weight", in_optimizer=True)],
        optimizer=SGD,
        loop=LoopFacts(steps=50, backwards=50, discarded=seen),
    )


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(thrown(40, 40, 3), [""], id="micro-batches-that-clear-each-other"),
        pytest.param(thrown(2, 2, 19), [""], id="one-step-an-epoch"),
        pytest.param(thrown(20, 18, 1), [""], id="but-two-steps"),
        pytest.param(thrown(20, 17, 2), [], id="now-and-then"),
        pytest.param(thrown(1, 1, 40), [], id="one-step"),
        pytest.param(thrown(15, 15, 1), [], id="too-few"),
    ],
)
def test_only_the_last_of_several_passes_is_of_use(observed, expected) -> None:
    assert ClearedBeforeStep().skip_reason(observed) is None
    assert places(observed) == expected


def test_the_message_counts_the_passes() -> None:
    (found,) = findings_of(ClearedBeforeStep(), thrown(40, 39, 3))

    assert found.message == (
        "gradients were cleared between backward and step: those of 3 of 4 backward passes, at "
        "39 of 40 observed steps"
    )
    assert "inner loop" in (found.help or "")
