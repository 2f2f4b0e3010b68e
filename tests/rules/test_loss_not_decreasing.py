from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.loss_not_decreasing import LossNotDecreasing
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    LossFacts,
    ModuleFacts,
    OptimizerFacts,
    ParameterFacts,
    TensorFacts,
    Trace,
)

SGD = OptimizerFacts("SGD")
SCHEDULED = OptimizerFacts("SGD", groups=({"lr": 0.0, "initial_lr": 0.1},))
CROSS_ENTROPY = LossFacts("cross_entropy", classes=5)
SUMMED = LossFacts("cross_entropy", reduction="sum", classes=5)
CHANCE = math.log(5)


def trace(
    losses: list[float],
    *,
    ratio: float = 0.01,
    loss: LossFacts | None = CROSS_ENTROPY,
    optimizer: OptimizerFacts | None = SGD,
    rates: list[float] | None = None,
    operations: tuple[Operation, ...] = (),
    targets: bool = True,
    **facts: object,
) -> Trace:
    steps = len(losses) - 1
    return trace_of(
        observe("loss", "", losses[:1] * 3, kind="model", step=0),
        observe("loss", "", losses[1:], kind="model"),
        observe("update_to_weight_ratio", "0.weight", [ratio] * steps, module="0"),
        observe("weight_rms", "0.weight", [0.1], step=0, module="0"),
        observe("learning_rate", "", rates or [0.1] * steps, kind="model"),
        parameters=(ParameterFacts("0.weight", (64, 64), module="0", fan_in=64),),
        modules=(ModuleFacts("0", "Linear", 0, 1),),
        operations=operations,
        losses=() if loss is None else (loss,),
        optimizer=optimizer,
        targets=(TensorFacts("target", (8,), "int64"),) if targets else (),
        **facts,
    )


def flat(level: float, steps: int = 40) -> list[float]:
    return [level] * (steps + 1)


def rising(to: float, steps: int = 40) -> list[float]:
    return [2.0, *[2.0 + (to - 2.0) * min(1.0, 2 * i / steps) for i in range(1, steps + 1)]]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(rising(9.0)), Severity.ERROR, id="multiplied"),
        pytest.param(trace(rising(4.0)), Severity.WARNING, id="exactly-doubled"),
        pytest.param(
            trace(rising(2.2), loss=LossFacts("cross_entropy", classes=20)),
            Severity.NOTE,
            id="exactly-a-tenth",
        ),
        pytest.param(trace([2.0, 9.0, math.nan]), Severity.ERROR, id="not-finite"),
        pytest.param(trace([2.0, *[2.0 * 0.97**i for i in range(40)]]), None, id="falling"),
        pytest.param(trace([2.0] * 30 + [50.0] + [1.0] * 10), None, id="single-outlier"),
        pytest.param(trace(flat(1.2 * CHANCE)), Severity.NOTE, id="exactly-at-the-excess"),
        pytest.param(trace(flat(1.5 * CHANCE)), Severity.WARNING, id="stays-above-a-guess"),
        pytest.param(trace(flat(CHANCE)), Severity.NOTE, id="stays-at-a-guess"),
        pytest.param(trace(flat(0.1)), Severity.NOTE, id="stays-below-a-guess"),
        pytest.param(trace(flat(1.5 * CHANCE, steps=19)), None, id="too-few-steps"),
        pytest.param(trace(flat(1.5 * CHANCE), ratio=1e-3), None, id="the-weights-hardly-moved"),
        pytest.param(trace(rising(4.0, steps=19)), None, id="rises-over-too-few-steps"),
        pytest.param(trace(flat(1.5 * CHANCE), ratio=math.nan), None, id="updates-not-known"),
        pytest.param(trace(flat(1e-3)), None, id="at-its-floor-from-the-start"),
        pytest.param(
            trace(flat(1.5 * CHANCE), loss=SUMMED), Severity.NOTE, id="a-sum-has-no-such-guess"
        ),
        pytest.param(
            trace(flat(1.5 * math.log(2)), loss=LossFacts("bce_with_logits")),
            Severity.WARNING,
            id="stays-above-a-guess-of-two",
        ),
        pytest.param(trace([2.0, 9.0, 9.0]), None, id="three-losses"),
        pytest.param(trace([]), None, id="nothing"),
    ],
)
def test_the_end_is_compared_with_the_start(observed, expected) -> None:
    found = findings_of(LossNotDecreasing(), observed)

    assert [f.severity for f in found] == ([] if expected is None else [expected])


def test_noise_hides_both_a_rise_and_a_stay() -> None:
    noisy = [2.0, *[1.5 + 2.0 * (i % 2) for i in range(40)]]

    assert findings_of(LossNotDecreasing(), trace(noisy)) == ()


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(rising(9.0), synthesized=True), id="made-up"),
        pytest.param(trace(rising(9.0), optimizer=None), id="no-optimizer"),
        pytest.param(
            trace(rising(9.0), optimizer=OptimizerFacts("Adam", probe=True)), id="our-own"
        ),
        pytest.param(trace(rising(9.0), targets=False), id="no-targets"),
        pytest.param(trace(rising(9.0), loss=None), id="a-loss-we-do-not-know"),
        pytest.param(trace(flat(1.5 * CHANCE), rates=[0.01 * i for i in range(40)]), id="warm-up"),
        pytest.param(trace(flat(1.5 * CHANCE), optimizer=SCHEDULED), id="a-schedule-starts-low"),
    ],
)
def test_guards(observed) -> None:
    assert findings_of(LossNotDecreasing(), observed) == ()


def test_a_sum_of_terms_is_at_most_a_note() -> None:
    total = Operation(0, "add", "add", in_loss=True)

    for losses in (rising(9.0), flat(1.5 * CHANCE)):
        (found,) = findings_of(LossNotDecreasing(), trace(losses, operations=(total,)))
        assert found.severity is Severity.NOTE


def test_the_message_names_both_ends_and_the_noise() -> None:
    (found,) = findings_of(LossNotDecreasing(), trace(rising(9.0)))

    assert found.message == "the loss went from 2 to 9 in 40 steps (noise 0)"


def test_an_optimizer_that_maximizes_is_named() -> None:
    climbing = OptimizerFacts("SGD", groups=({"lr": 0.1, "maximize": True},))

    (found,) = findings_of(LossNotDecreasing(), trace(rising(9.0), optimizer=climbing))

    assert found.message.endswith(": the optimizer maximizes it")
    assert "maximize" in found.help


def test_a_contrast_whose_right_answer_always_stands_first_is_a_note() -> None:
    seen = {"batches": 9, "constant": 9, "values": 1, "all": 288, "fewest": 32}

    (found,) = findings_of(LossNotDecreasing(), trace(rising(9.0), probes={"targets": seen}))

    assert found.severity is Severity.NOTE


def test_losses_of_two_kinds_are_at_most_a_note() -> None:
    observed = trace(rising(9.0))
    both = replace(observed.facts, losses=(CROSS_ENTROPY, LossFacts("kl_div")))

    (found,) = findings_of(LossNotDecreasing(), observed.but(facts=both))

    assert found.severity is Severity.NOTE


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param([2.0, *[2.0 * 3**i for i in range(40)]], Severity.ERROR, id="diverges"),
        pytest.param([2.0] * 13 + [10.0, 100.0] * 14, Severity.ERROR, id="left-for-good"),
        pytest.param([2.0] * 13 + [10.0, 100.0] * 13 + [2.0, 99.0], None, id="came-back-once"),
        pytest.param([2.0] * 3 + [10.0, 100.0] * 3, None, id="too-few-to-tell"),
        pytest.param([0.1, *[0.1, 2.0] * 20], None, id="noise-from-a-lucky-start"),
    ],
)
def test_growth_is_told_from_noise(losses, expected) -> None:
    found = findings_of(LossNotDecreasing(), trace(losses))

    assert [f.severity for f in found] == ([] if expected is None else [expected])


NEGATED = (
    Operation(0, "linear", "linear", "0", parameters=("0.weight",)),
    Operation(1, "log_softmax", "log_softmax", inputs=(0,), in_loss=True),
    Operation(2, "nll", "nll", inputs=(1,), in_loss=True),
    Operation(3, "neg", "neg", inputs=(2,), in_loss=True),
)


def turned(losses: list[float], *, sums: bool = False) -> Trace:
    """A cross-entropy of five classes with a minus sign in front, or without one."""
    target = TensorFacts("target", (8,), "int64", 0, 4, unique=5)
    observed = trace(
        losses,
        loss=replace(SUMMED if sums else CROSS_ENTROPY, target=target, operation=2),
        operations=NEGATED,
    )
    held = replace(observed.parameters["0.weight"], in_optimizer=True)
    return observed.but(parameters={"0.weight": held})


def sinking(by: float, start: float = CHANCE) -> list[float]:
    return [-start - by * i for i in range(41)]


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(turned(sinking(0.2)), True, id="multiplied"),
        pytest.param(turned(sinking(0.04)), False, id="not-yet-doubled"),
        pytest.param(turned(sinking(0.2, start=0.5 * CHANCE)), True, id="from-half-a-guess"),
        pytest.param(turned(sinking(0.2, start=0.4 * CHANCE)), False, id="trained-before"),
        pytest.param(
            turned([-CHANCE, *[-9.0 - 8.0 * (i % 2) for i in range(40)]]), False, id="in-the-noise"
        ),
        pytest.param(turned(sinking(0.2), sums=True), False, id="a-sum-has-no-such-guess"),
        pytest.param(
            turned(sinking(0.2)).but(graph=trace([], operations=NEGATED[:3]).graph), False,
            id="no-minus-sign",
        ),
    ],
)  # fmt: skip
def test_a_loss_driven_away_from_its_targets_is_an_error(observed: Trace, flagged: bool) -> None:
    found = findings_of(LossNotDecreasing(), observed)

    assert [f.severity for f in found] == ([Severity.ERROR] if flagged else [])
