from __future__ import annotations

from collections.abc import Sequence

import pytest

from gradlint.finding import Severity
from gradlint.rules.gradients_not_cleared import GradientsNotCleared
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, ParameterFacts, Trace

ERROR, NOTE = Severity.ERROR, Severity.NOTE
GAN = ("netD", "netG") * 6


def trace(
    carried: Sequence[float],
    *,
    streams: Sequence[str] = (),
    steps: Sequence[int] = (),
    loop: LoopFacts | None = None,
    parameters: Sequence[ParameterFacts] = (),
) -> Trace:
    numbers = steps or range(1, len(carried) + 1)
    return trace_of(
        *[observe("carried_gradient_norm", "", [v], step=s)
          for s, v in zip(numbers, carried, strict=True)],
        *[observe("stream_loss", name, [1.0], step=s)
          for s, name in zip(numbers, streams, strict=False)],
        modules=[ModuleFacts(name, "Net") for name in dict.fromkeys(streams)],
        parameters=parameters,
        loop=loop or LoopFacts(steps=100, backwards=100),
    )  # fmt: skip


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(GradientsNotCleared(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace([0, 1, 2, 3, 4]), [ERROR], id="never-cleared"),
        pytest.param(trace([0, 1, 2, 3], steps=(1, 40, 400, 4000)), [ERROR], id="thinned-steps"),
        pytest.param(trace([0, 1, float("nan"), float("nan")]), [ERROR], id="ended-in-nan"),
        pytest.param(trace([0, *[1.0] * 19, 0]), [ERROR], id="cleared-once-an-epoch"),
        pytest.param(trace([0, 1, 0, 1, 0, 1, 0, 1]), [NOTE], id="cleared-every-second-step"),
        pytest.param(trace([0.0] * 10), [], id="cleared"),
        pytest.param(trace([0, 1, 1]), [], id="too-few-steps"),
        pytest.param(trace([1.0, *[0.0] * 9]), [], id="a-gradient-from-before-the-loop"),
        pytest.param(trace([*[0.0] * 30, 1, 1, 1]), [], id="now-and-then"),
        pytest.param(
            trace([0.0] * 10, loop=LoopFacts(steps=10, backwards=80)), [], id="accumulation"
        ),
        pytest.param(trace([0.0] * 12, streams=GAN), [], id="gan"),
        pytest.param(
            trace(
                [0.0] * 10,
                parameters=[ParameterFacts("trunk.weight", in_optimizer=False),
                            ParameterFacts("head.weight", in_optimizer=True)],
            ),
            [],
            id="head-only-training",
        ),
        pytest.param(
            trace([0.0] * 10, loop=LoopFacts(steps=10, backwards=10, by_hand=True)),
            [],
            id="by-hand-and-cleared",
        ),
    ],
)  # fmt: skip
def test_what_a_step_leaves_behind_is_to_be_gone_before_the_next(observed, expected) -> None:
    assert severities(observed) == expected


def test_of_two_optimizers_the_one_that_is_not_cleared_is_named() -> None:
    observed = trace([0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0], streams=GAN)

    (found,) = findings_of(GradientsNotCleared(), observed)

    assert found.severity is ERROR
    assert found.module == "netD"
    assert found.message == (
        "gradients were not cleared: those of the step before were still there at 5 of 5 observed "
        "steps of netD"
    )


def test_by_hand_the_help_names_no_optimizer() -> None:
    observed = trace([0, 1, 2, 3, 4], loop=LoopFacts(steps=5, backwards=5, by_hand=True))

    assert "optimizer" not in findings_of(GradientsNotCleared(), observed)[0].help


def test_nothing_is_said_without_a_loop() -> None:
    observed = trace_of(observe("carried_gradient_norm", "", [0, 1, 2, 3, 4]))

    assert findings_of(GradientsNotCleared(), observed) == ()


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        pytest.param(
            LoopFacts(steps=12, backwards=6, optimizers=("Adam", "Adam")), ERROR, id="turns"
        ),
        pytest.param(
            LoopFacts(steps=12, backwards=12, optimizers=("Adam", "Adam")), NOTE, id="apart"
        ),
        pytest.param(LoopFacts(steps=12, backwards=12, optimizers=("Adam",)), NOTE, id="one"),
        pytest.param(
            LoopFacts(steps=12, backwards=6, optimizers=("Adam", "Adam"), streams=2), NOTE, id="gan"
        ),
    ],
)
def test_optimizers_that_take_turns_are_looked_at_one_by_one(loop, expected) -> None:
    (found,) = findings_of(GradientsNotCleared(), trace([0, 0, *[0.0, 1.0] * 5], loop=loop))

    assert found.severity is expected


def test_the_message_tells_whose_turn_it_was() -> None:
    loop = LoopFacts(steps=12, backwards=6, optimizers=("Adam", "Adam"))
    (found,) = findings_of(GradientsNotCleared(), trace([0, 0, *[0.0, 1.0] * 5], loop=loop))

    assert found.message == (
        "gradients were not cleared: those of the step before were still there at 5 of 5 observed "
        "steps of optimizer 2 of 2, by their turns"
    )
    assert not findings_of(GradientsNotCleared(), trace([0.0] * 12, loop=loop))


def test_one_optimizer_has_no_turns() -> None:
    loop = LoopFacts(steps=12, backwards=12, optimizers=("Adam",))
    (found,) = findings_of(GradientsNotCleared(), trace([0, *[1.0] * 11], loop=loop))

    assert "turns" not in found.message
