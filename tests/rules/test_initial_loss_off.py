"""GL105: a loss far above chance before any training."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradlint.graph import Operation
from gradlint.loop_facts import LoopFacts
from gradlint.rules.initial_loss_off import InitialLossOff
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import LossFacts, TensorFacts, Trace

OPERATIONS = chain("linear", "nll")
TARGET = TensorFacts("target", (64, 1), "float32", -3.0, 3.0, mean=0.0, std=1.0)


def start(values: list[float], *behind: str, **changes: Any) -> Trace:
    """A loss at step 0; `behind` are operations behind the loss operation."""
    facts = {"kind": "cross_entropy", "classes": 10, "operation": 1}
    given = changes.pop("losses", None)
    facts.update({key: changes.pop(key) for key in list(changes) if key in FIELDS})
    operations = [*OPERATIONS]
    for kind in behind:
        last = len(operations)
        operations.append(Operation(last, kind, "", inputs=(last - 1,), in_loss=True))
    return trace_of(
        observe("loss", "", values, step=0),
        operations=operations,
        losses=given or (LossFacts(**facts),),
        **changes,
    )


FIELDS = set(LossFacts.__dataclass_fields__)
LIMIT = 2 * math.log(10) + 2


@pytest.mark.parametrize(
    ("losses", "flagged"),
    [
        pytest.param([27.0] * 3, True, id="over-confident"),
        pytest.param([LIMIT] * 3, False, id="exactly-at-the-limit"),
        pytest.param([LIMIT + 0.01] * 3, True, id="just-above"),
        pytest.param([2.5, 2.3, 2.4], False, id="chance"),
        pytest.param([2.4, 90.0, 2.4], False, id="one-bad-batch"),
        pytest.param([0.1] * 3, False, id="low"),
        pytest.param([math.nan] * 3, False, id="nan"),
        pytest.param([math.inf] * 3, False, id="infinite"),
        pytest.param([], False, id="nothing-observed"),
    ],
)
def test_flags_a_cross_entropy_far_above_chance(losses: list[float], flagged: bool) -> None:
    assert bool(findings_of(InitialLossOff(), start(losses))) is flagged


@pytest.mark.parametrize(
    ("loss", "changes", "flagged"),
    [
        pytest.param(5.0, {"kind": "bce_with_logits", "classes": None}, True, id="bce-high"),
        pytest.param(0.8, {"kind": "bce", "classes": None}, False, id="bce-chance"),
        pytest.param(50.0, {"kind": "nll", "row_sum_max": 1.0}, True, id="log-probabilities"),
        pytest.param(50.0, {"kind": "nll", "row_sum_max": 9.0}, False, id="no-probabilities"),
        pytest.param(101.0, {"kind": "mse", "target": TARGET}, True, id="mse-output-too-large"),
        pytest.param(100.0, {"kind": "mse", "target": TARGET}, False, id="mse-at-the-limit"),
        pytest.param(1.0, {"kind": "mse", "target": TARGET}, False, id="mse-chance"),
        pytest.param(99.0, {"kind": "l1"}, False, id="unknown-chance"),
        pytest.param(99.0, {"kind": "other"}, False, id="a-loss-of-one-s-own"),
        pytest.param(99.0, {"reduction": "sum"}, False, id="summed"),
        pytest.param(99.0, {"reduction": "none"}, False, id="unreduced"),
        pytest.param(99.0, {"synthesized": True}, False, id="made-up-batch"),
        pytest.param(99.0, {"pretrained": True}, False, id="loaded-weights"),
        pytest.param(99.0, {"operation": None}, False, id="no-operation"),
        pytest.param(99.0, {"operation": 99}, False, id="operation-not-in-the-graph"),
        pytest.param(99.0, {"step": 3}, False, id="a-later-loss"),
    ],
)
def test_speaks_only_where_chance_is_known(
    loss: float, changes: dict[str, Any], flagged: bool
) -> None:
    assert bool(findings_of(InitialLossOff(), start([loss] * 3, **changes))) is flagged


def test_constant_targets_have_no_chance_value() -> None:
    constant = TensorFacts("target", (64, 1), "float32", mean=0.0, std=0.0)

    assert not findings_of(InitialLossOff(), start([99.0], kind="mse", target=constant))


@pytest.mark.parametrize(
    ("behind", "flagged"),
    [(["mean"], True), (["view"], True), (["scale"], False), (["add"], False), (["mul"], False)],
)
def test_a_loss_that_is_not_the_whole_loss_is_silent(behind: list[str], flagged: bool) -> None:
    assert bool(findings_of(InitialLossOff(), start([99.0] * 3, *behind))) is flagged


def judged_behind(*kinds: str, in_loss: bool = False) -> Trace:
    """A cross-entropy whose logits come through operations of `kinds`, one after another."""
    operations = [Operation(0, "linear", "", "0", parameters=("0.weight",))]
    operations += [
        Operation(
            i, kind, "", inputs=(i - 1,), in_loss=in_loss,
            parameters=("1.weight",) if kind == "linear" else (),
        )
        for i, kind in enumerate(kinds, 1)
    ]  # fmt: skip
    last = len(operations)
    operations.append(Operation(last, "log_softmax", "", inputs=(last - 1,), in_loss=True))
    operations.append(Operation(last + 1, "nll", "", inputs=(last,), in_loss=True))
    return trace_of(
        observe("loss", "", [99.0] * 3, step=0),
        operations=operations,
        losses=(LossFacts("cross_entropy", classes=10, operation=last + 1),),
    )


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(judged_behind(), True, id="a-layer"),
        pytest.param(judged_behind("relu", "linear"), True, id="layers"),
        pytest.param(judged_behind("relu", "scale", "mean"), True, id="times-a-constant"),
        pytest.param(judged_behind("layer_norm"), True, id="normalized"),
        pytest.param(judged_behind("mul", "sum"), True, id="product-of-embeddings"),
        pytest.param(judged_behind("matmul"), True, id="adjacency-matrix"),
        pytest.param(judged_behind("scale", in_loss=True), True, id="temperature"),
        pytest.param(judged_behind("cdist", "pow", "neg"), False, id="distances"),
        pytest.param(judged_behind("cdist"), False, id="distances-of-a-layer's-outputs"),
        pytest.param(judged_behind("cdist", "pow", "neg", in_loss=True), False, id="to-prototypes"),
        pytest.param(judged_behind("div", "linear", "scale"), False, id="cosine"),
        pytest.param(judged_behind("div", "matmul", "scale"), False, id="cosine-of-two"),
        pytest.param(judged_behind("where", "scale", in_loss=True), False, id="margin"),
        pytest.param(judged_behind("linear", in_loss=True), False, id="weights-of-the-loss"),
    ],
)
def test_logits_that_compare_are_no_guesses(observed: Trace, flagged: bool) -> None:
    assert bool(findings_of(InitialLossOff(), observed)) is flagged


def test_two_losses_are_silent() -> None:
    two = tuple(LossFacts("cross_entropy", classes=10, operation=i) for i in (1, 2))

    assert not findings_of(InitialLossOff(), start([99.0] * 3, losses=two))


def test_a_squared_error_by_hand_is_one_loss() -> None:
    operations = [Operation(0, "linear", "", "0"), Operation(1, "shift", "", inputs=(0,))]
    operations += [
        Operation(2, "pow", "", inputs=(1,), in_loss=True),
        Operation(3, "mean", "", inputs=(2,), in_loss=True),
    ]
    trace = trace_of(
        observe("loss", "", [1000.0], step=0),
        operations=operations,
        losses=(LossFacts("mse", operation=1, target=TARGET),),
    )

    assert findings_of(InitialLossOff(), trace)


def test_the_message_names_loss_and_chance() -> None:
    (found,) = findings_of(InitialLossOff(), start([27.123] * 3))

    assert found.message == (
        "loss is 27 at step 0, before any training, where chance is 2.3 (ln 10; limit 6.6)"
    )
    assert found.module == ""


def test_a_loss_that_was_not_measured_at_the_start_is_silent() -> None:
    assert list(InitialLossOff().check(start([]))) == []


def test_a_squared_error_of_any_output_is_judged() -> None:
    observed = judged_behind("exp")
    linear, exp, *_ = observed.graph
    mse = Operation(2, "mse", "", None, (1,), in_loss=True)
    loss = LossFacts("mse", operation=2, target=TARGET)
    trace = trace_of(
        observe("loss", "", [1000.0] * 3, step=0), operations=(linear, exp, mse), losses=(loss,)
    )

    assert findings_of(InitialLossOff(), trace)


@pytest.mark.parametrize(("summed", "flagged"), [(1, True), (4, False)])
def test_micro_batches_that_are_summed_are_held_against_the_sum_of_chances(
    summed: int, flagged: bool
) -> None:
    seen = start([4 * 2.3], loop=LoopFacts(steps=10, backwards=10 * summed, summed=summed))
    assert bool(findings_of(InitialLossOff(), seen)) is flagged


def test_confident_logits_are_flagged_in_micro_batches_too() -> None:
    (found,) = findings_of(InitialLossOff(), start([4 * 27.0], loop=LoopFacts(summed=4)))
    assert "4 × ln 10" in found.message
