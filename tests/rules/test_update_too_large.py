from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.loop_facts import LoopFacts
from gradlint.rules.update_too_large import UpdateTooLarge
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, OptimizerFacts, ParameterFacts, Trace

SGD = OptimizerFacts("SGD")
RISING = [2.0, *[2.1 + 0.1 * i for i in range(40)]]
FALLING = [2.0, *[2.0 * 0.95**i for i in range(40)]]
STAYING = [2.0, *[1.5] * 40]


def trace(
    *ratios: list[float],
    losses: list[float] = RISING,
    optimizer: OptimizerFacts | None = SGD,
    spread: float = 0.1,
    kind: str = "Linear",
    shape: tuple[int, ...] = (64, 64),
    loop: LoopFacts | None = None,
    constant: float | None = None,
) -> Trace:
    observed, parameters, modules = [], [], []
    for i, values in enumerate(ratios):
        path = f"{i}.weight"
        modules.append(ModuleFacts(str(i), kind, i, 1))
        parameters.append(ParameterFacts(path, shape, module=str(i), fan_in=64))
        observed.append(observe("update_to_weight_ratio", path, values, module=str(i), depth=i))
        observed.append(observe("weight_rms", path, [spread], step=0, module=str(i)))
    observed.append(observe("loss", "", losses[:1], kind="model", step=0))
    observed.append(observe("loss", "", losses[1:], kind="model"))
    return trace_of(
        *observed,
        parameters=parameters,
        modules=modules,
        optimizer=optimizer,
        loop=loop,
        probes={} if constant is None else {"constant-output": {"loss": constant, "classes": 4}},
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(UpdateTooLarge(), observed)]


@pytest.mark.parametrize(
    ("ratios", "flagged"),
    [
        pytest.param([0.3] * 40, True, id="well-over"),
        pytest.param([0.1] * 40, False, id="exactly-at-the-limit"),
        pytest.param([0.3] * 15, True, id="just-enough-steps"),
        pytest.param([0.3] * 14, False, id="too-few-steps"),
        pytest.param([0.9] * 10 + [0.01] * 30, False, id="only-the-first-steps-of-adam"),
        pytest.param([0.01] * 20 + [5.0] + [0.01] * 19, False, id="single-outlier"),
        pytest.param([], False, id="not-observed"),
    ],
)
def test_the_median_after_the_first_steps_is_judged(ratios, flagged) -> None:
    assert severities(trace(ratios)) == ([Severity.ERROR] if flagged else [])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [(RISING, [Severity.ERROR]), (STAYING, [Severity.WARNING]), (FALLING, [])],
    ids=["rising", "fell-a-little", "halved"],
)
def test_the_loss_decides_how_bad_it_is(losses, expected) -> None:
    assert severities(trace([0.3] * 40, losses=losses)) == expected


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace([0.3] * 40, optimizer=None), id="no-optimizer"),
        pytest.param(
            trace([0.3] * 40, optimizer=OptimizerFacts("Adam", probe=True)), id="our-own-optimizer"
        ),
        pytest.param(
            trace([0.3] * 40, optimizer=OptimizerFacts("SGD", groups=({"maximize": True},))),
            id="climbing-on-purpose",
        ),
        pytest.param(trace([0.3] * 40, spread=1e-4), id="started-near-zero"),
        pytest.param(trace([0.3] * 40, kind="Embedding"), id="embedding"),
        pytest.param(trace([0.3] * 40, shape=(64,)), id="no-matrix"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_guards(observed) -> None:
    assert severities(observed) == []


BLOWN = [40.0, *[0.02] * 39]


@pytest.mark.parametrize(
    ("ratios", "losses", "expected"),
    [
        pytest.param([BLOWN, BLOWN], RISING, [Severity.ERROR], id="all-of-them"),
        pytest.param([BLOWN, [0.01] * 40], RISING, [Severity.ERROR], id="exactly-half"),
        pytest.param([BLOWN, [0.01] * 40, [0.01] * 40], RISING, [], id="fewer-than-half"),
        pytest.param([[1.0] + [0.02] * 39], RISING, [], id="exactly-its-own-size"),
        pytest.param([BLOWN], FALLING, [], id="the-loss-fell-all-the-same"),
        pytest.param(
            [BLOWN], [2.0, 6.1, *FALLING[2:]], [Severity.WARNING], id="it-fell-after-a-jump"
        ),
        pytest.param([BLOWN], [2.0, 6.0, *FALLING[2:]], [], id="a-jump-exactly-at-the-limit"),
        pytest.param([[3.0, 9.0]], [2.0, 1e9, math.nan], [Severity.ERROR], id="not-finite-at-once"),
    ],
)
def test_first_steps_that_replace_the_weights_are_found(ratios, losses, expected) -> None:
    assert severities(trace(*ratios, losses=losses)) == expected


HALF = [0.6, *[0.02] * 39]


@pytest.mark.parametrize(
    ("ratios", "losses", "constant", "expected"),
    [
        pytest.param([HALF], [2.3], 1.5, [Severity.WARNING], id="rose-and-knows-how-often"),
        pytest.param([BLOWN], [2.3], 1.4, [Severity.WARNING], id="replaced-and-knows-less"),
        pytest.param([HALF, [0.01] * 40, [0.01] * 40], [2.3], 1.4, [], id="fewer-than-half"),
        pytest.param([BLOWN], [2.3], 1.6, [], id="rose-and-learned"),
        pytest.param([BLOWN], [2.2], 1.4, [], id="a-rise-exactly-at-the-limit"),
        pytest.param([BLOWN], [*[1.9] * 11, 2.3], 1.4, [], id="a-rise-later-on"),
        pytest.param([BLOWN], [2.3], None, [], id="no-classes"),
        pytest.param([[0.5] * 3 + [0.02] * 37], [2.3], 1.4, [], id="exactly-half-of-its-size"),
        pytest.param([BLOWN], [2.3, *[1.9] * 38], 1.9, [Severity.ERROR], id="did-not-fall"),
        pytest.param([HALF], [2.3, *[1.9] * 38], 1.9, [Severity.WARNING], id="nor-here"),
    ],
)
def test_a_loss_that_fell_as_a_constants_would_is_no_progress(
    ratios, losses, constant, expected
) -> None:
    losses = [2.0, *losses, *[1.5] * (40 - len(losses))]

    assert severities(trace(*ratios, losses=losses, constant=constant)) == expected


def test_the_message_says_what_a_constant_output_reaches() -> None:
    (found,) = findings_of(
        UpdateTooLarge(), trace(HALF, losses=[2.0, 2.5, *[1.5] * 39], constant=1.4)
    )

    assert found.message == (
        "one of the first steps changed 0.weight by 0.6 times its size (limit 0.5), and 1 of 1 "
        "matrices likewise; the loss went from 2 by way of 2.5 to 1.5: a constant output reaches "
        "1.4"
    )


ROSE = [2.0, 2.1, 2.3, *[1.5] * 38]


def adam(
    *ratios: list[float],
    losses: list[float] = ROSE,
    value: float = 0.1,
    loop: LoopFacts | None = None,
) -> Trace:
    """Matrices 64 × 64 of norm 6 under Adam."""
    optimizer = OptimizerFacts("Adam", groups=({"lr": value},))
    observed = trace(*ratios, losses=losses, optimizer=optimizer, loop=loop)
    norms = (observe("weight_norm", path, [6.0], step=0) for path in observed.parameters)
    return observed.but(observations=[*observed, *(o for norm in norms for o in norm)])


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(adam(BLOWN), [Severity.NOTE], id="replaced-by-its-rate"),
        pytest.param(adam(BLOWN, [0.01] * 40, [0.01] * 40), [], id="fewer-than-half"),
        pytest.param(adam(HALF), [], id="not-replaced"),
        pytest.param(adam(BLOWN, value=0.09), [], id="not-by-its-rate"),
        pytest.param(trace(BLOWN, losses=ROSE), [], id="not-by-a-rate"),
        pytest.param(adam(BLOWN, losses=[2.0, 2.1, 2.2, *[1.5] * 38]), [], id="hardly-rose"),
        pytest.param(adam(BLOWN, losses=[2.0, *[1.5] * 11, 2.3, *[1.5] * 28]), [], id="rose-later"),
        pytest.param(adam(BLOWN, losses=[2.0, 2.3, *[1.4, 1.6] * 20]), [], id="within-its-noise"),
        pytest.param(adam(BLOWN, losses=[2.0, 2.3, *[1.0] * 39]), [], id="halved-all-the-same"),
        pytest.param(adam(BLOWN, loop=LoopFacts(streams=2)), [], id="losses-of-several-models"),
        pytest.param(adam(BLOWN, loop=LoopFacts()), [Severity.NOTE], id="in-a-loop"),
    ],
)
def test_a_rate_that_replaces_the_weights_is_noted_where_the_loss_rose(observed, expected) -> None:
    assert severities(observed) == expected


def test_the_note_says_by_way_of_what_the_loss_went() -> None:
    (found,) = findings_of(UpdateTooLarge(), adam(BLOWN))

    assert found.message.endswith("; the loss went from 2 by way of 2.3 to 1.5")


def test_updates_by_hand_are_the_users_steps() -> None:
    loop = LoopFacts(steps=40, by_hand=True)

    assert severities(trace([0.3] * 40, optimizer=None, loop=loop)) == [Severity.ERROR]


@pytest.mark.parametrize(
    ("ratios", "ended", "expected"),
    [
        pytest.param([30.0], "exception", [Severity.ERROR], id="replaced"),
        pytest.param([0.02], "exception", [], id="not-replaced"),
        pytest.param([30.0], "until", [], id="asked-to-stop"),
    ],
)
def test_a_step_after_which_the_script_raised_is_found(ratios, ended, expected) -> None:
    observed = trace(ratios, losses=[2.0, 2.0], loop=LoopFacts(steps=1, ended=ended))

    assert severities(observed) == expected


def test_the_messages_name_ratio_and_loss() -> None:
    (steady,) = findings_of(UpdateTooLarge(), trace([0.3] * 40))
    (blown,) = findings_of(UpdateTooLarge(), trace(BLOWN))

    assert steady.message == (
        "each step changes 0.weight by 30% of its size (limit 10%); the loss went from 2 to 5.5"
    )
    assert blown.message == (
        "one of the first steps changed 0.weight by 40 times its size (limit 1), and 1 of 1 "
        "matrices likewise; the loss went from 2 to 5.5"
    )


def thrown(optimizer: OptimizerFacts, *, first: float, usual: float, ratio: list[float]) -> Trace:
    """A 64 × 64 matrix whose norm is `first` at initialization and `usual` afterwards."""
    return trace_of(
        observe("update_to_weight_ratio", "0.weight", ratio, module="0"),
        observe("weight_rms", "0.weight", [0.1], step=0, module="0"),
        observe("weight_norm", "0.weight", [first], step=0, module="0"),
        observe("weight_norm", "0.weight", [usual] * 40, module="0"),
        observe("loss", "", RISING[:1], kind="model", step=0),
        observe("loss", "", RISING[1:], kind="model"),
        parameters=[ParameterFacts("0.weight", (64, 64), module="0", fan_in=64)],
        modules=[ModuleFacts("0", "Linear", 0, 1)],
        optimizer=optimizer,
    )


def rate(kind: str, value: float) -> OptimizerFacts:
    return OptimizerFacts(kind, groups=({"lr": value},))


PERSISTENT, AT_ONCE = [0.3] * 40, [30.0] * 5 + [0.01] * 35


@pytest.mark.parametrize(
    ("observed", "suffices"),
    [
        pytest.param(
            thrown(rate("Adam", 0.1), first=1, usual=10, ratio=PERSISTENT), True, id="adam"
        ),
        pytest.param(
            thrown(rate("Adam", 0.1), first=1, usual=64, ratio=PERSISTENT), False, id="too-heavy"
        ),
        pytest.param(
            thrown(rate("Adam", 0.1), first=6, usual=99, ratio=AT_ONCE), True, id="at-once"
        ),
        pytest.param(
            thrown(rate("Adam", 0.1), first=7, usual=1, ratio=AT_ONCE), False, id="not-at-once"
        ),
        pytest.param(thrown(rate("SGD", 1.0), first=1, usual=1, ratio=PERSISTENT), False, id="sgd"),
        pytest.param(
            thrown(rate("SGD", 200.0), first=1, usual=1, ratio=PERSISTENT), True, id="any-gradient"
        ),
        pytest.param(
            thrown(rate("SGD", 200.0), first=1, usual=1, ratio=AT_ONCE), True, id="any-at-once"
        ),
        pytest.param(
            thrown(OptimizerFacts("SGD"), first=1, usual=1, ratio=PERSISTENT), False, id="unknown"
        ),
    ],
)
def test_the_rate_suffices_where_an_ordinary_gradient_does_the_same(observed, suffices) -> None:
    (found,) = findings_of(UpdateTooLarge(), observed)

    assert found.evidence["rate_suffices"] is suffices


def test_an_optimizer_by_hand_has_no_rate_that_suffices() -> None:
    by_hand = trace(PERSISTENT, optimizer=None, loop=LoopFacts(by_hand=True))
    (found,) = findings_of(UpdateTooLarge(), by_hand)

    assert found.evidence["rate_suffices"] is False


def test_steps_that_are_too_large_throughout_are_said_once() -> None:
    assert len(list(UpdateTooLarge().check(trace([3.0] * 40)))) == 1


def test_of_a_run_that_was_blown_up_at_once_those_count_that_are_updated() -> None:
    observed = trace([30.0] * 5 + [0.01] * 35, [0.0] * 40, [0.0] * 40)
    held = {
        path: replace(facts, in_optimizer=path == "0.weight")
        for path, facts in observed.parameters.items()
    }

    assert severities(observed) == []
    assert severities(observed.but(parameters=held)) == [Severity.ERROR]


def several(ratios: dict[str, range], losses: dict[str, list[float]], steps: int) -> Trace:
    """A loop of several models, each with a loss of its own; every update is 30 %."""
    observed, parameters, modules = [], [], []
    for i, (name, own) in enumerate(ratios.items()):
        path = f"{name}.weight"
        modules.append(ModuleFacts(name, "Linear", i, 1))
        parameters.append(ParameterFacts(path, (64, 64), module=name, fan_in=64))
        observed.append(observe("weight_rms", path, [0.1], step=0, module=name))
        for k, step in enumerate(own):
            observed.append(observe("update_to_weight_ratio", path, [0.3], step=step, module=name))
            observed.append(observe("stream_loss", name, [losses[name][k]], step=step))
    return trace_of(
        *observed,
        parameters=parameters,
        modules=modules,
        optimizer=SGD,
        loop=LoopFacts(steps=steps, streams=len(ratios)),
    )


def test_of_several_models_one_whose_own_loss_halved_is_left_alone() -> None:
    own = {"a": range(1, 41), "b": range(41, 81)}
    losses = {"a": [2.0] * 40, "b": [2.0 * 0.95**i for i in range(40)]}
    found = UpdateTooLarge().check(several(own, losses, 80))
    assert [f.parameter for f in found] == ["a.weight"]


def test_a_model_that_joins_late_has_first_steps_of_its_own() -> None:
    own = {"a": range(1, 15), "b": range(15, 29)}
    losses = {"a": [2.0] * 14, "b": [2.0] * 14}
    assert not findings_of(UpdateTooLarge(), several(own, losses, 28))


def test_a_copy_adapted_in_passing_is_left_alone() -> None:
    own = {"a": range(1, 17), "b": range(17, 57)}
    losses = {"a": [2.0] * 16, "b": [2.0] * 40}
    long, short = several(own, losses, 400), several(own, losses, 56)
    assert [f.parameter for f in UpdateTooLarge().check(short)] == ["a.weight", "b.weight"]
    assert [f.parameter for f in UpdateTooLarge().check(long)] == ["b.weight"]


def test_in_a_check_without_a_loss_no_matrix_is_passing() -> None:
    observed = trace([0.3] * 40)
    unknown = observed.but(observations=tuple(o for o in observed if o.metric != "loss"))

    assert severities(unknown) == [Severity.WARNING]


@pytest.mark.parametrize(
    ("ratio", "losses", "expected"),
    [
        pytest.param(0.15, [2.0 - 0.015 * i for i in range(41)], [], id="it-falls"),
        pytest.param(
            0.16, [2.0 - 0.015 * i for i in range(41)], [Severity.WARNING], id="by-too-much"
        ),
        pytest.param(0.11, [2.0] * 41, [Severity.ERROR], id="it-does-not-fall"),
    ],
)
def test_more_is_allowed_where_the_loss_falls(ratio, losses, expected) -> None:
    assert severities(trace([ratio] * 40, losses=losses)) == expected


def test_the_message_names_the_limit_that_was_exceeded() -> None:
    (found,) = findings_of(
        UpdateTooLarge(), trace([0.3] * 40, losses=[2.0 - 0.015 * i for i in range(41)])
    )

    assert "by 30% of its size (limit 15%)" in found.message
