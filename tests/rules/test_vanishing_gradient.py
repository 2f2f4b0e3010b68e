"""GL301 vanishing-gradient."""

from __future__ import annotations

import pytest

from gradlint.rules.vanishing_gradient import VanishingGradient
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import Flow, OptimizerFacts, Site, Trace

SGD = OptimizerFacts("SGD")
ADAM = OptimizerFacts("AdamW")
PROBE = OptimizerFacts("Adam", probe=True)
SGD_PROBE = OptimizerFacts("SGD", probe=True)


def flows(*decades: float, step: int = 0, kind: str = "Sigmoid") -> list[Flow]:
    """The flows of one backward: the decades lost up to each layer, the first layer first."""
    return [
        Flow(
            step,
            Site(f"l{i}", "Linear", i, f"l{i}"),
            {kind: 0.75 * value, "weights": 0.25 * value, "structural": -1.5, "loss": 2.0},
            {"s0": -0.9, "s1": -0.6, "l1": 0.2} if i == 0 else {},
        )
        for i, value in enumerate(decades)
    ]


def geometric(
    total: float, layers: int = 10, *, step: int = 0, kind: str = "Sigmoid"
) -> list[Flow]:
    """Layers that lose the same factor each, `total` decades from the last to the second."""
    per_layer = total / (layers - 2)
    return flows(*(per_layer * (layers - 1 - i) for i in range(layers)), step=step, kind=kind)


def run(
    initial: float, later: float | None = None, *, optimizer: OptimizerFacts | None = SGD
) -> Trace:
    """Three batches at step 0, then six armed steps, each with a geometric profile."""
    found = [f for _ in range(3) for f in geometric(initial)]
    if later is not None:
        for step in (1, 2, 3, 20, 30, 40):
            found += geometric(initial if step <= 3 else later, step=step)
    return trace_of(flows=tuple(found), optimizer=optimizer)


def severities(trace: Trace) -> list[str]:
    return [f.severity.label for f in findings_of(VanishingGradient(), trace, exemptions=())]


@pytest.mark.parametrize(
    ("optimizer", "total", "expected"),
    [
        pytest.param(SGD, -8.0, ["error"], id="sgd-well-over"),
        pytest.param(SGD, -3.01, ["error"], id="sgd-just-over"),
        pytest.param(SGD, -2.99, [], id="sgd-just-under"),
        pytest.param(ADAM, -8.0, ["error"], id="adam-well-over"),
        pytest.param(ADAM, -4.9, ["warning"], id="adam-trains-slowly"),
        pytest.param(ADAM, -3.9, [], id="adam-trains"),
        pytest.param(PROBE, -4.9, ["warning"], id="no-optimizer-given"),
        pytest.param(None, -4.9, ["warning"], id="optimizer-unknown"),
        pytest.param(SGD_PROBE, -4.9, ["warning"], id="sgd-that-is-ours"),
        pytest.param(SGD, 3.0, [], id="growing"),
        pytest.param(SGD, 0.0, [], id="flat"),
    ],
)
def test_the_limit_depends_on_what_the_optimizer_makes_of_the_scale(
    optimizer: OptimizerFacts | None, total: float, expected: list[str]
) -> None:
    assert severities(run(total, total, optimizer=optimizer)) == expected


def test_exactly_at_the_limit_is_no_finding() -> None:
    trace = trace_of(flows=tuple(flows(-3.0, -2.0, -1.0, 0.0)), optimizer=SGD)

    assert VanishingGradient().limit == 10.0**-3.0
    assert severities(trace) == []


@pytest.mark.parametrize(
    ("initial", "later", "expected"),
    [
        pytest.param(-6.0, None, ["error"], id="initialization-alone"),
        pytest.param(-6.0, -0.5, [], id="recovered"),
        pytest.param(-6.0, -3.5, ["error"], id="still-over-the-limit"),
        pytest.param(-0.5, -6.0, ["warning"], id="vanished-in-training"),
    ],
)
def test_the_loss_must_last(initial: float, later: float | None, expected: list[str]) -> None:
    assert severities(run(initial, later)) == expected


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param((-6.0, -6.0, -6.0, -6.0, 0.0, 0.0, 0.0, 0.0), id="one-bottleneck"),
        pytest.param((-6.0, -0.4, -5.0, -0.3, -7.0, -0.2, -4.0, 0.0), id="scaled-down-branches"),
        pytest.param((-9.0, -0.5, -0.4, -0.3, -0.2, -0.2, -0.1, 0.0), id="a-query-first"),
        pytest.param((-8.0, -4.0, 0.0), id="too-few-layers"),
    ],
)
def test_a_profile_must_be_geometric_along_the_best_fed_layers(
    profile: tuple[float, ...],
) -> None:
    assert severities(trace_of(flows=tuple(flows(*profile)), optimizer=SGD)) == []


def test_under_adam_the_initialization_alone_is_no_warning() -> None:
    assert severities(run(-4.9, -4.9, optimizer=ADAM)) == ["warning"]
    assert severities(run(-4.9, optimizer=ADAM)) == []
    assert severities(run(-5.1, optimizer=ADAM)) == ["error"]


def test_a_single_outlier_among_the_batches_is_no_finding() -> None:
    found = (*geometric(-1.0), *geometric(-9.0), *geometric(-1.0))

    assert severities(trace_of(flows=found, optimizer=SGD)) == []


def test_layers_with_exactly_no_gradient_stand_before_the_profile() -> None:
    operations = chain(*["linear"] * 6)
    found = [
        Flow(0, Site(str(i), "Linear", i, str(i)), {"weights": -2.0 * (5 - i)}) for i in range(2, 6)
    ]
    norms = [o for i in range(2) for o in observe("pre_activation_grad_norm", str(i), [0], step=0)]
    trace = trace_of(norms, operations=operations, flows=tuple(found), optimizer=SGD)

    (finding,) = findings_of(VanishingGradient(), trace, exemptions=())

    assert ", and is exactly 0 in the 2 layers before it: " in finding.message
    assert finding.evidence["zero_layers"] == 2
    assert finding.modules[:3] == ("2", "0", "1")


def test_the_message_names_ends_limit_factor_and_kind() -> None:
    (found,) = findings_of(VanishingGradient(), run(-6.4), exemptions=())

    assert found.message == (
        "gradient shrinks by 6.3e-08 from l9 to l0 (limit 1e-03): 0.16 per layer, 5.4 of 7.2 "
        "decades in Sigmoid"
    )
    assert found.module == "l0"
    assert found.modules == ("l0", "l1", "l2", "l3", "l4", "l5")
    assert found.step == 0
    assert found.help.startswith("Replace Sigmoid")
    assert found.evidence["decades"] == {"Sigmoid": -5.4, "weights": -1.8}
    assert found.evidence["layers"] == {"s0": -0.9, "s1": -0.6}
    assert found.evidence["decay"] == pytest.approx(10**-7.2)


def test_the_help_fits_the_kind_that_loses_most() -> None:
    for kind, word in (("ReLU", "with the gain"), ("attention", "Use ReLU"), ("Tanh", "Tanh")):
        trace = trace_of(flows=tuple(geometric(-8.0, kind=kind)), optimizer=SGD)

        (found,) = findings_of(VanishingGradient(), trace, exemptions=())

        assert word in found.help


def test_structural_decades_are_shown_and_never_blamed() -> None:
    found = [
        Flow(0, Site(f"l{i}", "Linear", i, f"l{i}"), {"structural": float(i - 9)})
        for i in range(10)
    ]

    assert severities(trace_of(flows=tuple(found), optimizer=SGD)) == []


def test_the_rule_is_skipped_where_no_step_was_armed() -> None:
    reason = VanishingGradient().skip_reason(trace_of())

    assert reason == "no gains of single operations were observed"
