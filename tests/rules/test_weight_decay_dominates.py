from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.weight_decay_dominates import WeightDecayDominates
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, OptimizerFacts, ParameterFacts, Trace

SHRINKING = [10.0 * 0.5**i for i in range(12)]
SGD: dict[str, Any] = {"lr": 0.1, "momentum": 0.0, "weight_decay": 5.0}


def trace(
    norms: Sequence[float] = SHRINKING,
    kind: str = "SGD",
    ratio: float = 0.01,
    losses: Sequence[float] = (2.0, *[1.0] * 11),
    **group: Any,
) -> Trace:
    path = "0.weight"
    return trace_of(
        observe("weight_norm", path, norms[:1], step=0),
        observe("weight_norm", path, norms[1:]),
        observe("weight_rms", path, [0.5], step=0),
        observe("gradient_ratio", path, [ratio] * (len(norms) - 1)),
        observe("loss", "", losses, start=0),
        parameters=[ParameterFacts(path, (8, 8), module="0", fan_in=8)],
        optimizer=OptimizerFacts(kind, groups=({**SGD, **group},)),
    )


def without(metric: str, **settings: Any) -> Trace:
    observed = trace(**settings)
    return observed.but(observations=tuple(o for o in observed if o.metric != metric))


def severities(observed: Trace) -> list[Severity]:
    return [found.severity for found in findings_of(WeightDecayDominates(), observed)]


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace(), True, id="huge"),
        pytest.param(trace(weight_decay=5e-4, momentum=0.9), False, id="usual"),
        pytest.param(trace(lr=0.5, weight_decay=0.02), False, id="exactly-at-the-limit"),
        pytest.param(trace(weight_decay=0.11), True, id="just-over-it"),
        pytest.param(trace(weight_decay=0.02, momentum=0.9), True, id="momentum-counts"),
        pytest.param(trace([10.0] * 12), False, id="weights-hold-out"),
        pytest.param(trace([10.0] * 11 + [7.0]), False, id="exactly-at-the-rest"),
        pytest.param(trace(SHRINKING[:8]), False, id="too-few-steps"),
        pytest.param(trace(kind="AdamW", weight_decay=5.0), True, id="decoupled"),
        pytest.param(trace(kind="AdamW", weight_decay=0.01), False, id="decoupled-usual"),
        pytest.param(trace(kind="AdamW", ratio=9.0), True, id="decoupled-whatever-the-gradient"),
        pytest.param(trace(kind="Muon", ratio=9.0), True, id="decoupled-by-definition"),
        pytest.param(trace(kind="Adam", ratio=9.0), False, id="coupled-and-less-than-the-gradient"),
        pytest.param(
            trace(kind="Adam", ratio=9.0, decoupled_weight_decay=True),
            True,
            id="decoupled-by-option",
        ),
        pytest.param(without("gradient_ratio", kind="Adam"), False, id="gradient-not-measured"),
        pytest.param(trace([0.0, *SHRINKING]), False, id="from-zero"),
        pytest.param(trace(kind="Adam", ratio=0.1), True, id="more-decay-than-gradient"),
        pytest.param(trace(kind="Adam", ratio=9.0), False, id="less-decay-than-gradient"),
        pytest.param(trace([10.0] * 12, weight_decay=11.0), True, id="at-once-at-a-usual-rate-too"),
        pytest.param(trace([10.0] * 12, weight_decay=10.0), False, id="at-once-by-the-rate"),
        pytest.param(trace([10.0] * 12, lr=5e-3, weight_decay=20.0), False, id="not-at-once"),
        pytest.param(trace([10.0] * 12, lr=5.1e-3, weight_decay=20.0), True, id="just-at-once"),
        pytest.param(
            trace([10.0] * 12, "Adam", weight_decay=20.0), False, id="rescaled-with-the-gradient"
        ),
        pytest.param(trace(weight_decay=0.0), False, id="none"),
    ],
)
def test_decay_is_judged_by_its_lifetime(observed: Trace, flagged: bool) -> None:
    assert bool(severities(observed)) is flagged


def test_it_is_an_error_where_the_loss_stays() -> None:
    assert severities(trace()) == [Severity.WARNING]
    assert severities(trace(losses=[2.0] * 12)) == [Severity.ERROR]


def test_gradlints_own_optimizer_is_not_judged() -> None:
    optimizer = OptimizerFacts("SGD", groups=(SGD,), probe=True)
    observed = trace()

    assert not severities(observed.but(facts=trace_of(optimizer=optimizer).facts))


def test_the_message_says_how_long_a_weight_lives() -> None:
    (found,) = findings_of(WeightDecayDominates(), trace(losses=[2.0] * 12))

    assert found.message == (
        "decay alone takes a weight away in 2 steps (limit 100): the median weight matrix "
        "has 0.00049 of its norm after 11 steps"
    )


def test_an_optimizer_that_decays_nothing_is_skipped() -> None:
    observed = trace(weight_decay=0.0)

    assert WeightDecayDominates().skip_reason(observed) == "the optimizer decays no weights"


def test_weights_that_shrink_without_an_optimizer_are_not_judged() -> None:
    observed = trace().but(facts=trace_of().facts)

    assert list(WeightDecayDominates().check(observed)) == []


@pytest.mark.parametrize(
    ("norms", "group", "reads", "flagged"),
    [
        pytest.param([10.0] * 11 + [0.4], {"weight_decay": 0.0}, "0.weight", True, id="l1"),
        pytest.param([10.0] * 11 + [0.5], {"weight_decay": 0.0}, "0.weight", False, id="at-limit"),
        pytest.param([10.0] * 11 + [0.4], {"weight_decay": 1e-4}, "0.weight", True, id="and-decay"),
        pytest.param([10.0] * 11 + [0.4], {"weight_decay": 0.0}, "0.bias", False, id="of-biases"),
    ],
)
def test_a_penalty_in_the_loss_that_takes_the_weights_away_is_named(
    norms: list[float], group: dict[str, float], reads: str, flagged: bool
) -> None:
    observed = trace(norms, **group)
    loss = Operation(0, "parameter_add", "", None, (), (reads,), in_loss=True)
    observed = Trace(
        observed.observations, parameters=observed.parameters, graph=Graph((loss,)),
        facts=observed.facts,
    )  # fmt: skip

    found = findings_of(WeightDecayDominates(), observed)

    assert [f.message.startswith("the loss holds a penalty") for f in found] == [True] * flagged


def penalized(
    ratios: Sequence[float] = (2.0,) * 11,
    sizes: Sequence[float] = tuple(range(1, 12)),
    norms: Sequence[float] = (10.0, *[6.0] * 11),
    others: int = 0,
    reads: tuple[str, ...] = ("0.weight",),
) -> list[str]:
    """What is said of a penalty in the loss, by the gradients of the weights it reads."""
    paths = ["0.weight", *(f"{i}.weight" for i in range(1, others + 1))]
    noisy = [0.1 * (i + 1) for i in range(11)]
    observed = [
        o
        for path in paths
        for o in (
            observe("weight_norm", path, norms[:1], step=0),
            observe("weight_norm", path, norms[1:]),
            observe("weight_rms", path, [0.5], step=0),
            observe("gradient_ratio", path, ratios if path == "0.weight" else noisy),
            observe("gradient_norm", path, sizes if path == "0.weight" else noisy),
        )
    ]
    loss = Operation(0, "parameter_add", "", None, (), reads, in_loss=True)
    found = findings_of(
        WeightDecayDominates(),
        trace_of(
            *observed,
            operations=(loss,),
            parameters=[ParameterFacts(p, (8, 8), module=p[0], fan_in=8) for p in paths],
            optimizer=OptimizerFacts("SGD", groups=({**SGD, "weight_decay": 0.0},)),
        ),
    )
    return [f.message for f in found]


def test_a_penalty_that_is_all_of_the_gradient_is_named() -> None:
    (squares,) = penalized((*[2.0] * 9, 2.03, 9.0))

    assert squares == (
        "the loss holds a penalty on the weights themselves, and most gradients are the penalty's "
        "alone to within 0.015 of their size: the median weight matrix has 0.6 of its norm after "
        "11 steps (limit 0.7)"
    )
    assert penalized([0.1 * (i + 1) for i in range(11)], [8.0] * 11)  # of sizes
    assert penalized((0.1,) * 11)


def test_a_penalty_beside_which_data_counts_is_silent() -> None:
    assert penalized((*[2.0] * 9, 2.05, 2.0)) == []
    assert penalized((0.09,) * 11) == []
    assert penalized((2.0,) * 9) == []
    assert penalized(norms=(10.0, *[7.0] * 11)) == []
    assert penalized(reads=("0.bias",)) == []
    assert penalized(others=1, reads=("0.weight", "1.weight")) == []
    assert penalized((2.0,) * 6 + (0.0,) * 5) == []
    assert penalized([0.1 * (i + 1) for i in range(11)], (0.0,) * 11) == []


def test_a_decay_that_takes_the_weights_away_is_named_before_a_penalty() -> None:
    penalty = Operation(0, "parameter_add", "", None, (), ("0.weight",), in_loss=True)
    observed = trace([10.0] * 11 + [0.4]).but(graph=Graph((penalty,)))

    (found,) = findings_of(WeightDecayDominates(), observed)

    assert found.message.startswith("decay alone takes a weight away")


STUCK = (0.7, *[0.69] * 11)
GONE = [10.0, *[3.0] * 10, 0.1]


def tables(
    norms: Sequence[float] = GONE,
    kind: str = "Adam",
    zeros: float | None = 0.0,
    ratio: float | None = 0.01,
    losses: Sequence[float] = STUCK,
    others: Sequence[float] = GONE,
    groups: Sequence[dict[str, Any]] = ({"lr": 0.01, "weight_decay": 0.1},),
    frozen: bool = False,
) -> Trace:
    """Two embeddings and nothing else; `others` are the norms of the second one."""
    seen = []
    for path, of_table in (("a.weight", norms), ("b.weight", others)):
        seen += [
            observe("weight_norm", path, of_table[:1], step=0),
            observe("weight_norm", path, of_table[1:]),
            observe("weight_rms", path, [0.5], step=0),
        ]
        if ratio is not None:
            seen.append(observe("gradient_ratio", path, [ratio] * 11))
        if zeros is not None:
            seen.append(observe("gradient_zero_share", path, [zeros] * 4))
    seen.append(observe("loss", "", losses, start=0))
    return trace_of(
        *seen,
        modules=[ModuleFacts(path, "Embedding") for path in ("a", "b")],
        parameters=[
            ParameterFacts(
                f"{path}.weight", (8, 8), requires_grad=not frozen, module=path, fan_in=8
            )
            for path in ("a", "b")
        ],
        optimizer=OptimizerFacts(kind, groups=tuple(groups)),
    )


def sgd(rate: float, momentum: float = 0.0) -> list[dict[str, Any]]:
    return [{"lr": rate, "weight_decay": 0.1, "momentum": momentum}]


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(tables(), True, id="gone"),
        pytest.param(tables(norms=[10.0] * 11 + [0.5]), False, id="exactly-at-the-rest"),
        pytest.param(tables(norms=[10.0] * 11 + [0.49]), True, id="just-below"),
        pytest.param(tables(others=[10.0] * 12), False, id="another-table-holds-out"),
        pytest.param(tables(others=[0.0, *GONE[1:]]), True, id="another-one-started-at-zero"),
        pytest.param(tables(zeros=0.97), False, id="rows-in-use-may-hold-what-is-left"),
        pytest.param(tables(zeros=0.95), True, id="rows-in-use-hold-too-little"),
        pytest.param(tables(zeros=1.0), False, id="no-row-in-use"),
        pytest.param(tables(zeros=None), False, id="rows-not-counted"),
        pytest.param(tables(ratio=None), False, id="gradient-not-measured"),
        pytest.param(tables(ratio=0.1), False, id="as-much-gradient"),
        pytest.param(tables(ratio=0.09), True, id="less-gradient"),
        pytest.param(tables(ratio=0.09, zeros=0.5), False, id="gradient-in-the-rows-in-use"),
        pytest.param(tables(losses=(0.7, *[0.6] * 11)), False, id="learns"),
        pytest.param(tables(losses=()), False, id="no-loss"),
        pytest.param(tables(frozen=True), False, id="frozen"),
        pytest.param(tables(norms=GONE[:5], others=GONE[:5]), False, id="too-few-steps"),
        pytest.param(
            tables(groups=[{"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.01, "weight_decay": 0.0}]),
            False,
            id="a-group-without-decay",
        ),
        pytest.param(tables(kind="SGD", ratio=9.0, groups=sgd(0.09)), False, id="lives-111-steps"),
        pytest.param(tables(kind="SGD", ratio=9.0, groups=sgd(0.11)), True, id="lives-91-steps"),
        pytest.param(tables(kind="SGD", groups=sgd(0.1, 0.5)), True, id="momentum-counts"),
        pytest.param(tables(kind="AdamW", groups=sgd(0.01)), False, id="decoupled"),
    ],
)
def test_flags_embeddings_whose_rows_in_use_are_gone(observed: Trace, flagged: bool) -> None:
    assert severities(observed) == ([Severity.ERROR] if flagged else [])


def test_the_message_says_what_is_left_of_embeddings() -> None:
    (adam,) = findings_of(WeightDecayDominates(), tables(zeros=0.75))
    (sgd_,) = findings_of(WeightDecayDominates(), tables(kind="SGD", groups=sgd(0.5)))

    assert adam.message == (
        "decay adds 0.1 of each weight to a gradient of 0.02 of it: the rows in use of every "
        "embedding that started above zero have 0.02 of their norm at most after 11 steps "
        "(limit 0.05)"
    )
    assert sgd_.message.startswith("decay alone takes a weight away in 20 steps (limit 100): ")
    assert adam.help.startswith("Lower weight_decay by 1000")
