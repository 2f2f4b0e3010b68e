from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.rules.step_never_called import StepNeverCalled
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    LoopFacts,
    LossFacts,
    ModuleFacts,
    OptimizerFacts,
    ParameterFacts,
    ScalerFacts,
    StrangerFacts,
    TensorFacts,
    Trace,
)

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
SGD = OptimizerFacts("SGD")


def trace(optimizer: OptimizerFacts | None = SGD, **loop: object) -> Trace:
    return trace_of(
        modules=[ModuleFacts("", "Net")],
        optimizer=optimizer,
        loop=LoopFacts(**{"backwards": 30, "idle_optimizers": ("SGD",), **loop}),  # type: ignore[arg-type]
    )


def unoptimized(*, target: bool = True, training: bool = True, **facts: object) -> Trace:
    """Two hundred backward passes, and no optimizer."""
    known = TensorFacts("target", (8,), "int64") if target else None
    return trace_of(
        modules=[ModuleFacts("", "Net", training=training)],
        losses=(LossFacts("cross_entropy", target=known),),
        **{"loop": LoopFacts(backwards=200), **facts},
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(StepNeverCalled(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(), [ERROR], id="never"),
        pytest.param(trace(None), [ERROR], id="known-by-its-class-alone"),
        pytest.param(trace(backwards=10), [ERROR], id="ten-backwards"),
        pytest.param(trace(ended="interrupted"), [WARNING], id="cut-short"),
        pytest.param(trace(ended="interrupted", backwards=500), [ERROR], id="cut-late"),
        pytest.param(trace(None, idle_optimizers=()), [NOTE], id="gradients-are-looked-at"),
        pytest.param(
            trace(None, idle_optimizers=(), strangers=(StrangerFacts("SGD", 10, 4),)),
            [],
            id="another-stepped-which-is-another-rule",
        ),
        pytest.param(
            trace(None, idle_optimizers=(), strangers=(StrangerFacts("SGD", 9, 4),)),
            [NOTE],
            id="another-stepped-a-few-times",
        ),
        pytest.param(unoptimized(), [WARNING], id="updates-forgotten"),
        pytest.param(unoptimized(optimizer=SGD), [ERROR], id="an-optimizer-exists"),
        pytest.param(unoptimized(loop=LoopFacts(backwards=99)), [NOTE], id="a-few-looks"),
        pytest.param(unoptimized(target=False), [NOTE], id="nothing-to-learn-from"),
        pytest.param(unoptimized(training=False), [NOTE], id="evaluated"),
        pytest.param(unoptimized(pretrained=True), [NOTE], id="a-trained-model-explained"),
        pytest.param(trace(OptimizerFacts("Adam", has_state=True)), [NOTE], id="a-checkpoint"),
        pytest.param(trace(backwards=9), [], id="nine-backwards"),
        pytest.param(trace(backwards=0), [], id="evaluation"),
        pytest.param(trace(None, by_hand=True, idle_optimizers=()), [], id="by-hand"),
        pytest.param(trace(steps=30, idle_optimizers=()), [], id="stepped"),
        pytest.param(trace(steps=3, backwards=48, idle_optimizers=()), [], id="accumulation"),
        pytest.param(trace(scaler=ScalerFacts(65536.0, 1.0, 30, 30)), [], id="all-skipped"),
        pytest.param(trace_of(optimizer=SGD), [], id="check"),
    ],
)
def test_backward_without_a_step_trains_nothing(observed, expected) -> None:
    assert severities(observed) == expected


def test_the_message_counts() -> None:
    (found,) = findings_of(StepNeverCalled(), trace())

    assert found.message == "30 backward passes, and SGD never stepped"


def gan(
    update: float, *, held: bool | None = True, steps: int = 40, requires_grad: bool = True
) -> Trace:
    """Two networks, of which the second moves by `update` a step."""
    return trace_of(
        *[observe("update_to_weight_ratio", f"{n}.weight", [v] * 8)
          for n, v in (("netD", 1e-3), ("netG", update))],
        *[observe("weight_norm", f"{n}.weight", [2.0 * (1 + v) ** i for i in range(8)])
          for n, v in (("netD", 1e-3), ("netG", update))],
        modules=[ModuleFacts("netD", "D", 0), ModuleFacts("netG", "G", 1)],
        parameters=[
            ParameterFacts("netD.weight", (4, 4), module="netD", in_optimizer=True),
            ParameterFacts("netG.weight", (4, 4), module="netG", in_optimizer=held,
                           requires_grad=requires_grad),
        ],
        optimizer=OptimizerFacts("Adam+Adam"),
        loop=LoopFacts(steps=steps, backwards=80, optimizers=("Adam",),
                       idle_optimizers=("AdamW",)),
    )  # fmt: skip


def test_an_idle_optimizer_beside_another_is_a_warning_where_something_stands_still() -> None:
    (found,) = findings_of(StepNeverCalled(), gan(0.0))

    assert found.severity is WARNING
    assert found.module == "netG"
    assert found.message == (
        "AdamW never stepped in 40 steps of Adam: 1 parameter of netG got gradients and stood still"
    )


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(gan(1e-3), id="built-and-replaced-by-another"),
        pytest.param(gan(0.0, held=False), id="in-no-optimizer"),
        pytest.param(gan(0.0, steps=5), id="its-turn-comes-later"),
        pytest.param(gan(0.0, requires_grad=False), id="frozen-until-its-phase"),
    ],
)
def test_an_idle_optimizer_that_nothing_waits_for_is_silent(observed) -> None:
    assert severities(observed) == []


def test_the_topmost_module_that_stands_still_is_named() -> None:
    observed = gan(0.0)
    parts = {
        f"netG.{part}.weight": replace(
            observed.parameters["netG.weight"], path=f"netG.{part}.weight", module=f"netG.{part}"
        )
        for part in ("a", "b")
    }
    seen = [
        o
        for path in parts
        for metric, value in (("update_to_weight_ratio", 0.0), ("weight_norm", 2.0))
        for o in observe(metric, path, [value] * 8)
    ]
    parameters = {"netD.weight": observed.parameters["netD.weight"], **parts}

    (found,) = findings_of(
        StepNeverCalled(), observed.but(observations=(*observed, *seen), parameters=parameters)
    )

    assert found.modules == ("netG",)


def test_weights_that_turn_at_the_same_size_do_not_stand_still() -> None:
    observed = gan(1e-3)
    kept = [o for o in observed if (o.metric, o.site.path) != ("weight_norm", "netG.weight")]

    assert not findings_of(StepNeverCalled(), observed.but(observations=kept))
