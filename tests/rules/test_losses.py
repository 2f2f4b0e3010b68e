"""What rules ask of a loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.graph import Operation
from gradlint.rules._losses import (
    entry,
    first_behind,
    loss_groups,
    noise,
    place,
    predictions,
    progress,
    refused,
)
from gradlint.testing import chain, observe, trace_of
from gradlint.trace import Event, Facts, LossFacts, TensorFacts, Trace

BOUNDS = "Target 7 is out of bounds."
OUTPUT = TensorFacts("output", (64, 5), "float32")
LABELS = TensorFacts("target", (64,), "int64")


def raised(message: str = BOUNDS, phase: str = "loss") -> tuple[Event, ...]:
    return (Event("exception", detail={"phase": phase, "message": message}),)


def test_what_a_loss_says_of_its_targets_is_known() -> None:
    assert refused(trace_of(events=raised())) == ("cross_entropy", "Target 7 is out of bounds")
    assert refused(trace_of(events=raised("out of memory"))) is None
    assert refused(trace_of(events=raised(phase="forward"))) is None


REFUSED = Facts(events=raised(), outputs=(OUTPUT,), targets=(LABELS,))


@pytest.mark.parametrize(
    ("facts", "kinds"),
    [
        pytest.param(REFUSED, ["cross_entropy"], id="raised"),
        pytest.param(replace(REFUSED, events=()), [], id="not-raised"),
        pytest.param(replace(REFUSED, losses=(LossFacts("mse"),)), ["mse"], id="a-loss-was-seen"),
        pytest.param(replace(REFUSED, outputs=()), [], id="no-output"),
        pytest.param(replace(REFUSED, outputs=(OUTPUT, OUTPUT)), [], id="two-outputs"),
        pytest.param(replace(REFUSED, targets=()), [], id="no-targets"),
        pytest.param(replace(REFUSED, targets=(LABELS, LABELS)), [], id="two-targets"),
    ],
)
def test_a_loss_that_raised_is_known_by_the_one_output_and_the_one_target(
    facts: Facts, kinds: list[str]
) -> None:
    groups = loss_groups(Trace(facts=facts))

    assert [group[0].kind for group in groups] == kinds


def test_a_loss_that_raised_has_as_many_classes_as_the_output() -> None:
    ((loss,),) = loss_groups(Trace(facts=REFUSED))

    assert (loss.classes, loss.output, loss.target) == (5, OUTPUT, LABELS)


def test_observations_of_one_loss_are_one_group_whatever_the_batch() -> None:
    small = LossFacts("mse", output=replace(OUTPUT, shape=(8, 5)), target=OUTPUT)
    large, summed = replace(small, output=OUTPUT), replace(small, reduction="sum")

    groups = loss_groups(trace_of(losses=(small, summed, large)))

    assert groups == [[small, large], [summed]]


def test_the_prediction_of_cross_entropy_stands_in_front_of_its_softmax() -> None:
    operations = chain("linear", "view", "log_softmax", "view", "nll")
    trace = trace_of(operations=operations)
    loss = LossFacts("cross_entropy", operation=4)

    assert entry(trace.graph, loss) == operations[2]
    assert predictions(trace, loss) == (operations[0],)
    assert place(trace, loss) == "0"


def test_a_loss_of_unknown_place_is_the_only_one_of_its_kind() -> None:
    mse = LossFacts("mse")
    twice = (*chain("linear", "mse"), Operation(2, "mse", "", None, (0,), in_loss=True))

    assert predictions(trace_of(operations=chain("linear", "mse")), mse) == chain("linear")
    assert entry(trace_of(operations=twice).graph, mse) is None


def test_what_reads_nothing_has_nothing_behind_it() -> None:
    alone = trace_of(operations=(Operation(0, "mse", "", None, in_loss=True),))

    assert first_behind(alone.graph, alone.graph.operations[0]) == ()


@pytest.mark.parametrize(
    ("start", "after", "expected"),
    [
        pytest.param([2.0], [1.9, 1.5, 1.2, 1.0], (2.0, 1.2), id="last-three-at-least"),
        pytest.param([], [1.9, 1.5, 1.2, 1.0], (1.9, 1.2), id="from-the-first-step"),
        pytest.param([2.0, 2.2, 9.0], [1.0] * 8, (2.2, 1.0), id="median-of-the-start"),
        pytest.param([2.0], [1.0, 1.0, 1.0], None, id="too-few"),
        pytest.param([2.0], [3.0, math.nan], (2.0, math.inf), id="ended-non-finite"),
        pytest.param([2.0], [1.0] * 9 + [math.inf, 1.0, 1.0], (2.0, 1.0), id="one-that-came-back"),
        pytest.param([], [], None, id="nothing"),
    ],
)
def test_progress_is_from_the_start_to_the_last_quarter(
    start: list[float], after: list[float], expected: tuple[float, float] | None
) -> None:
    trace = trace_of(observe("loss", "", start, step=0), observe("loss", "", after))

    assert progress(trace) == expected


def test_noise_is_the_usual_change_from_step_to_step() -> None:
    assert noise(trace_of(observe("loss", "", [1.0, 2.0, 1.0, math.nan, 2.0]))) == pytest.approx(
        1.4826 / math.sqrt(2)
    )
    assert noise(trace_of(observe("loss", "", [1.0]))) == 0.0


def test_an_output_that_was_only_moved_around_is_no_prediction() -> None:
    """Of a loss whose place is not known, what the model returns is the prediction."""
    linear, view, squared = chain("linear", "view", "pow")
    direct = (linear, replace(squared, id=1, inputs=(0,), in_loss=True))
    moved = (linear, view, replace(squared, in_loss=True))

    assert predictions(trace_of(operations=direct), LossFacts("mse")) == (linear,)
    assert predictions(trace_of(operations=moved), LossFacts("mse")) == ()


def test_a_loss_of_another_step_s_graph_has_no_place_in_this_one() -> None:
    """Heads that train in turns have graphs of their own."""
    trace = trace_of(operations=chain("linear", "mse"))
    here, elsewhere = LossFacts("mse", operation=1), LossFacts("mse", operation=99)

    assert predictions(trace, here) == chain("linear")
    assert entry(trace.graph, elsewhere) is None
    assert predictions(trace, elsewhere) == ()
    assert place(trace, elsewhere) is None


@pytest.mark.parametrize(
    ("first", "kinds"),
    [
        pytest.param(0, ["sigmoid"], id="whole"),
        pytest.param(1, [], id="what-the-last-layer-reads-is-missing"),
        pytest.param(3, [], id="nothing-is-kept"),
    ],
)
def test_what_a_loss_of_another_step_judges_is_known_where_all_of_it_is_kept(
    first: int, kinds: list[str]
) -> None:
    kept = chain("linear", "sigmoid", "mse")[first:]
    loss = LossFacts("mse", operation=-1, before=kept)

    found = predictions(trace_of(operations=chain("linear", "cross_entropy")), loss)

    assert [op.kind for op in found] == kinds
