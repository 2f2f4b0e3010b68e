from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.loop_facts import LoopFacts
from gradlint.rules.update_too_small import UpdateTooSmall
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, OptimizerFacts, ParameterFacts, Trace

SGD = OptimizerFacts("SGD")
SCHEDULED = OptimizerFacts("SGD", groups=({"lr": 0.0, "initial_lr": 0.1},))
RESUMED = OptimizerFacts("SGD", groups=({"lr": 0.0, "initial_lr": 0.1},), has_state=True)


def trace(
    *ratios: list[float],
    losses: list[float] | None = None,
    norm: float = 1.0,
    rates: list[float] | None = None,
    optimizer: OptimizerFacts | None = SGD,
    loop: LoopFacts | None = None,
    backward: list[float] | None = None,
    pretrained: bool = False,
) -> Trace:
    observed, parameters, modules = [], [], []
    for i, values in enumerate(ratios):
        path = f"{i}.weight"
        modules.append(ModuleFacts(str(i), "Linear", i, 1))
        parameters.append(ParameterFacts(path, (64, 64), module=str(i), fan_in=64))
        observed.append(observe("update_to_weight_ratio", path, values, module=str(i)))
        observed.append(observe("weight_rms", path, [0.1], step=0, module=str(i)))
    shown = losses or [2.0] * 41
    observed.append(observe("loss", "", shown[:1], kind="model", step=0))
    observed.append(observe("loss", "", shown[1:], kind="model"))
    observed.append(observe("total_gradient_norm", "", [norm] * 40, kind="model"))
    observed.append(observe("learning_rate", "", rates or [1e-7] * 40, kind="model"))
    observed.append(observe("backward_gradient_norm", "", backward or [], kind="model"))
    return trace_of(
        *observed,
        parameters=parameters,
        modules=modules,
        optimizer=optimizer,
        loop=loop,
        pretrained=pretrained,
    )


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace([1e-8] * 40), True, id="well-below"),
        pytest.param(trace([1e-6] * 40), False, id="exactly-at-the-limit"),
        pytest.param(trace([1e-8] * 10), True, id="just-enough-steps"),
        pytest.param(trace([1e-8] * 9), False, id="too-few-steps"),
        pytest.param(trace([1e-8] * 40, [1e-3] * 40), False, id="another-matrix-moves"),
        pytest.param(trace([1e-8] * 39 + [1.0]), True, id="single-outlier"),
        pytest.param(trace([1e-8] * 40, losses=[2.0, *[0.5] * 40]), False, id="the-loss-fell"),
        pytest.param(trace([1e-8] * 40, losses=[1e-9] * 41), False, id="at-its-floor"),
        pytest.param(trace([1e-8] * 40, norm=0.0), False, id="no-gradient"),
        pytest.param(trace([0.0] * 40), False, id="nothing-moves-at-a-rate-above-zero"),
        pytest.param(trace([0.0] * 40, rates=[0.0] * 40), True, id="the-rate-is-zero"),
        pytest.param(trace([1e-8] * 40, rates=[1e-7 * i for i in range(40)]), False, id="warm-up"),
        pytest.param(trace([1e-8] * 40, optimizer=SCHEDULED), False, id="a-schedule-starts-low"),
        pytest.param(
            trace([1e-8] * 40, optimizer=SCHEDULED, loop=LoopFacts()), True, id="nobody-steps-it"
        ),
        pytest.param(trace([1e-8] * 40, optimizer=RESUMED), True, id="a-schedule-has-ended"),
        pytest.param(trace([1e-8] * 5, loop=LoopFacts(steps=40)), True, id="few-looked-at"),
        pytest.param(trace([1e-8] * 2, loop=LoopFacts(steps=40)), False, id="two-looked-at"),
        pytest.param(
            trace([1e-8] * 5, rates=[1e-7] * 5 + [1e-3] * 34 + [1e-4], loop=LoopFacts(steps=40)),
            False,
            id="looked-at-while-the-rate-was-low",
        ),
        pytest.param(
            trace([1e-8] * 40, optimizer=None, loop=LoopFacts(steps=40, by_hand=True)),
            True,
            id="by-hand",
        ),
        pytest.param(trace([1e-8] * 40, optimizer=None), False, id="no-optimizer"),
        pytest.param(
            trace([1e-8] * 40, optimizer=OptimizerFacts("Adam", probe=True)), False, id="our-own"
        ),
        pytest.param(trace([1e-8] * 40, losses=[2.0] * 3), False, id="three-losses"),
        pytest.param(trace([1e-8] * 5, loop=LoopFacts(steps=5)), False, id="a-loop-of-few-steps"),
        pytest.param(
            trace([1e-8] * 40, rates=[1e-3] + [1e-7] * 39, loop=LoopFacts(steps=40)),
            True,
            id="looked-at-throughout",
        ),
        pytest.param(
            trace([0.0] * 5, rates=[0.0] * 40, loop=LoopFacts(steps=40)),
            False,
            id="looked-at-only-where-the-rate-is-zero",
        ),
        pytest.param(trace_of(), False, id="nothing"),
    ],
)
def test_updates_that_move_nothing_are_a_warning(observed, flagged) -> None:
    found = findings_of(UpdateTooSmall(), observed)

    assert [f.severity for f in found] == ([Severity.WARNING] if flagged else [])


def test_the_message_names_ratio_and_rate() -> None:
    (found,) = findings_of(UpdateTooSmall(), trace([1e-8] * 40))

    assert found.message == (
        "no weight matrix changes by more than 1e-08 of its size a step at a learning rate of "
        "1e-07 (limit 1e-06); the loss stays at 2"
    )


def rounded(
    gradient: float = 1.0,
    *,
    rate: float = 1e-9,
    dtype: str = "float32",
    kind: str = "SGD",
    held: bool = True,
) -> Trace:
    """A 64 × 64 matrix of norm 10 that never changes."""
    parameter = ParameterFacts(
        "0.weight", (64, 64), module="0", fan_in=64, dtype=dtype, in_optimizer=held
    )
    return trace_of(
        observe("update_to_weight_ratio", "0.weight", [0.0] * 40, module="0"),
        observe("weight_rms", "0.weight", [0.16], step=0, module="0"),
        observe("weight_norm", "0.weight", [10.0] * 40, module="0"),
        observe("gradient_norm", "0.weight", [gradient] * 40, module="0"),
        observe("loss", "", [2.0], kind="model", step=0),
        observe("loss", "", [2.0] * 40, kind="model"),
        observe("total_gradient_norm", "", [gradient] * 40, kind="model"),
        observe("learning_rate", "", [rate] * 40, kind="model"),
        parameters=[parameter],
        modules=[ModuleFacts("0", "Linear", 0, 1)],
        optimizer=OptimizerFacts(kind),
    )


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(rounded(), True, id="below-the-precision"),
        pytest.param(rounded(rate=1e-4), False, id="above-it"),
        pytest.param(rounded(dtype="bfloat16"), False, id="half-precision-is-another-rule's"),
        pytest.param(rounded(kind="Adam"), True, id="any-gradient-under-adam"),
        pytest.param(rounded(1e-9, kind="Adam"), False, id="near-adam's-own-eps"),
        pytest.param(rounded(held=False), False, id="in-no-optimizer"),
    ],
)
def test_where_nothing_changes_rounding_has_to_explain_it(observed, flagged) -> None:
    assert bool(findings_of(UpdateTooSmall(), observed)) is flagged


def test_a_rounded_update_is_told_at_the_size_it_would_have() -> None:
    (found,) = findings_of(UpdateTooSmall(), rounded())

    assert found.evidence["ratio"] == pytest.approx(1e-10)


@pytest.mark.parametrize(
    ("late", "flagged"),
    [
        pytest.param([1.6, 0.9] * 20, True, id="within-its-noise"),
        pytest.param([1.3, 1.2] * 20, False, id="clearly"),
    ],
)
def test_a_loss_falls_only_by_more_than_its_noise(late, flagged) -> None:
    observed = trace([1e-8] * 40, losses=[2.0, *late])

    assert bool(findings_of(UpdateTooSmall(), observed)) is flagged


@pytest.mark.parametrize(
    ("rate", "suffices"),
    [
        pytest.param(1e-7, True, id="a-usual-rate-would-do"),
        pytest.param(1e-5, True, id="just-would"),
        pytest.param(1.1e-5, False, id="would-not"),
        pytest.param(0.0, True, id="there-is-none"),
    ],
)
def test_the_rate_suffices_where_a_usual_one_would_move_the_weights(rate, suffices) -> None:
    (found,) = findings_of(UpdateTooSmall(), trace([1e-8] * 40, rates=[rate] * 40))

    assert found.evidence["rate_suffices"] is suffices


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace([5e-5] * 40, loop=LoopFacts(steps=199)), True, id="whole-run"),
        pytest.param(trace([5e-5] * 40, loop=LoopFacts(steps=200)), False, id="at-the-limit"),
        pytest.param(trace([5e-6] * 40, loop=LoopFacts(steps=99)), False, id="short-run"),
        pytest.param(
            trace([5e-6] * 40, loop=LoopFacts(steps=100, ended="until")), False, id="cut-short"
        ),
        pytest.param(trace([5e-6] * 40), False, id="a-few-steps-of-a-check"),
        pytest.param(
            trace([5e-6] * 40, loop=LoopFacts(steps=100), pretrained=True),
            False,
            id="loaded-weights",
        ),
        pytest.param(
            trace([5e-6] * 40, losses=[2.0, *[0.5] * 40], loop=LoopFacts(steps=100)),
            False,
            id="the-loss-fell",
        ),
    ],
)
def test_a_run_that_is_over_and_moved_no_weight_is_told(observed, flagged) -> None:
    found = findings_of(UpdateTooSmall(), observed)

    assert bool(found) is flagged
    assert all("in the whole run" in f.message for f in found)


@pytest.mark.parametrize(
    ("norms", "losses", "flagged"),
    [
        pytest.param([0.0] * 5, [1e-8] * 41, True, id="never-a-gradient"),
        pytest.param([0.0] * 4 + [1e-9], [1e-8] * 41, False, id="once"),
        pytest.param([0.0] * 2, [1e-8] * 41, False, id="too-few-looks"),
        pytest.param([0.0] * 5, [0.0] * 41, False, id="nothing-is-lost"),
    ],
)
def test_a_gradient_of_zeros_alone_moves_nothing(norms, losses, flagged) -> None:
    loop = LoopFacts(steps=40)
    observed = trace([0.0] * 40, losses=losses, norm=0.0, loop=loop, backward=norms)

    found = findings_of(UpdateTooSmall(), observed)

    assert [f.message.partition(" is ")[2][:9] for f in found] == (["exactly 0"] if flagged else [])


def adadelta(ratio: float, rate: float = 1e-3, **facts: object) -> list[str]:
    optimizer = OptimizerFacts(str(facts.pop("kind", "Adadelta")), groups=({"lr": rate},))
    observed = trace([ratio] * 40, rates=[rate] * 40, optimizer=optimizer, **facts)  # type: ignore[arg-type]
    return [f.help or "" for f in findings_of(UpdateTooSmall(), observed)]


def test_adadelta_finds_its_own_rate() -> None:
    (said,) = adadelta(4e-5)

    assert said.startswith("Use lr=1.0")
    assert adadelta(4e-5, rate=0.01)
    assert adadelta(1e-4) == []
    assert adadelta(4e-5, rate=0.011) == []
    assert adadelta(4e-5, kind="Adam") == []
    assert adadelta(4e-5, pretrained=True) == []
    assert adadelta(4e-5, losses=[2.0, *[0.5] * 40]) == []


def test_the_cause_is_adadelta_s_rate_alone() -> None:
    optimizer = OptimizerFacts("Adadelta", groups=({"lr": 1e-3},))
    (found,) = findings_of(
        UpdateTooSmall(), trace([4e-5] * 40, rates=[1e-3] * 40, optimizer=optimizer)
    )

    assert found.evidence["limit"] == 1e-4
    assert found.evidence["rate_suffices"]


def apart(
    *ratios: float,
    rates: tuple[float, ...] = (0.1, 1e-7),
    pushed: float = 0.1,
    kind: str = "SGD",
    held: bool = True,
    **facts: object,
) -> list[str]:
    """What is said of matrices in groups with rates of their own."""
    optimizer = OptimizerFacts(kind, groups=tuple({"lr": rate} for rate in rates))
    seen = trace(*([r] * 40 for r in ratios), optimizer=optimizer, **facts)  # type: ignore[arg-type]
    parameters = [replace(p, in_optimizer=held) for p in seen.parameters.values()]
    gradients = [observe("gradient_ratio", p.path, [pushed] * 40) for p in parameters]
    whole = trace_of(
        list(seen),
        *gradients,
        parameters=parameters,
        modules=list(seen.modules.values()),
        optimizer=optimizer,
        pretrained=bool(facts.get("pretrained")),
    )
    return [f.message for f in findings_of(UpdateTooSmall(), whole)]


def test_rates_that_vanish_from_layer_to_layer_are_told_of_most_weights() -> None:
    (said,) = apart(1e-2, 1e-8, 0.0)

    assert said.startswith("learning rates run from 1e-07 to 0.1: 2 of 3 weight matrices, 67%")
    assert apart(1e-2, 1e-8, 0.0, kind="Adam", pushed=0.0)


def test_rates_that_differ_otherwise_are_silent() -> None:
    assert apart(1e-2, 1e-8) == []  # half
    assert apart(1e-2, 1e-8, 1e-6) == []
    assert apart(1e-2, 1e-8, 0.0, rates=(0.1, 2e-4)) == []
    assert apart(1e-2, 1e-8, 0.0, rates=(0.1, 0.0)) == []  # on purpose
    assert apart(1e-2, 1e-8, 0.0, rates=()) == []
    assert apart(1e-2, 1e-8, 0.0, pushed=9e-4) == []  # no gradient to speak of
    assert apart(1e-2, 1e-8, 0.0, pushed=math.nan) == []
    assert apart(1e-2, 1e-8, 0.0, pretrained=True) == []
    assert apart(1e-2, 1e-8, 0.0, held=False) == []
    assert apart(1e-2, 1e-8, 0.0, losses=[2.0, *[0.5] * 40]) == []


def test_updates_by_hand_have_no_rates_to_compare() -> None:
    loop = LoopFacts(steps=40, by_hand=True)

    assert findings_of(UpdateTooSmall(), trace([1e-2] * 40, optimizer=None, loop=loop)) == ()
