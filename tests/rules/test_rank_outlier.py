"""GL902 rank-outlier."""

from __future__ import annotations

import math

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.rank_outlier import RankOutlier
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, RankFacts, Trace


def distributed(
    *losses: float, start: float = 2.0, metric: str = "loss", **more: tuple[float, ...]
) -> Trace:
    ranks = RankFacts(len(losses), tuple(range(len(losses))), local={metric: losses, **more})
    return trace_of(
        observe("loss", "", [start], step=0),
        command="run",
        loop=LoopFacts(steps=50, ranks=ranks),
    )


@pytest.mark.parametrize(
    ("losses", "rank"),
    [
        pytest.param((1.0, 1.1, 0.9, 30.0), 3, id="one-far-above"),
        pytest.param((1.0, 0.05, 0.9, 1.1), 1, id="one-far-below"),
        pytest.param((1.0, 0.0, 0.9, 1.1), 1, id="one-that-gives-nothing"),
        pytest.param((1.0, 25.0), 1, id="two-ranks"),
        pytest.param((25.0, 1.0), 0, id="two-ranks-the-other-way"),
        pytest.param((1.0, 1.0, 10.1), 2, id="over-the-limit"),
        pytest.param((1.0, 1.0, 10.0), None, id="exactly-at-the-limit"),
        pytest.param((1.0, 1.2, 0.8, 2.5), None, id="shards-of-other-kinds"),
        pytest.param((1.0, 5.0, 20.0, 90.0), None, id="no-two-ranks-agree"),
        pytest.param((1.0, 1.0, 40.0, 40.0), None, id="two-camps"),
        pytest.param((1.0, 1.0, math.nan), None, id="not-finite-is-another-rule"),
        pytest.param((0.0, 0.0, 0.0), None, id="nothing-anywhere"),
        pytest.param((1.0,), None, id="one-rank-alone"),
    ],
)
def test_flags_the_one_rank_unlike_the_others(losses: tuple[float, ...], rank: int | None) -> None:
    found = findings_of(RankOutlier(), distributed(*losses))

    assert [f.evidence["rank"] for f in found] == ([] if rank is None else [rank])


def test_what_is_left_of_a_converged_loss_says_nothing() -> None:
    assert findings_of(RankOutlier(), distributed(1e-6, 1e-6, 1e-4)) == ()
    assert findings_of(RankOutlier(), distributed(1e-6, 1e-6, 1e-1))


def test_gradients_speak_where_losses_agree() -> None:
    trace = distributed(1.0, 1.0, 1.0, activation_grad_norm=(1e-3, 1e-3, 5e-2))

    (found,) = findings_of(RankOutlier(), trace)

    assert found.message == (
        "activation gradient's norm on rank 2 is 50 times that of the other 2 ranks "
        "(limit: a factor of 10)"
    )
    assert found.severity.label == "warning"


def test_the_loss_speaks_first_and_alone() -> None:
    trace = distributed(1.0, 65000.0, activation_grad_norm=(1.0, 255.0))

    (found,) = findings_of(RankOutlier(), trace)

    assert found.message == (
        "loss on rank 1 is 6.5e+04 times that of rank 0 (limit: a factor of 10)"
    )


def test_a_rank_that_did_not_report_is_not_compared() -> None:
    ranks = RankFacts(2, (0,), local={"loss": (1.0,)})
    trace = trace_of(command="run", loop=LoopFacts(steps=9, ranks=ranks))

    assert judge(trace, [RankOutlier()]).skipped == {"GL902": "one rank alone reported"}


@pytest.mark.parametrize("ranks", [None, RankFacts(1, (0,), local={"loss": (1.0,)})])
def test_a_run_of_one_process_has_no_ranks(ranks: RankFacts | None) -> None:
    trace = trace_of(command="run", loop=LoopFacts(steps=9, ranks=ranks))

    assert RankOutlier().skip_reason(trace) == "not a distributed run"


def test_values_of_other_ranks_than_reported_are_not_compared() -> None:
    ranks = RankFacts(4, (0, 1, 2, 3), local={"loss": (1.0, 1.0, 30.0)})

    assert findings_of(RankOutlier(), trace_of(loop=LoopFacts(steps=9, ranks=ranks))) == ()


def test_gradients_speak_where_no_loss_was_seen() -> None:
    trace = distributed(1e-3, 1e-3, 5e-2, metric="activation_grad_norm")

    assert len(findings_of(RankOutlier(), trace)) == 1


def test_gradients_that_are_zero_everywhere_are_alike() -> None:
    assert findings_of(RankOutlier(), distributed(1.0, 1.0, activation_grad_norm=(0.0, 0.0))) == ()


def test_a_rank_that_gives_nothing_is_called_that() -> None:
    (found,) = findings_of(RankOutlier(), distributed(1.0, 0.0, 0.9))

    assert found.message == (
        "loss on rank 1 is zero, unlike that of the other 2 ranks (limit: a factor of 10)"
    )
