from __future__ import annotations

from collections.abc import Sequence

import pytest

from gradlint.finding import Severity
from gradlint.rules.weights_unchanged import WeightsUnchanged
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, OptimizerFacts, ParameterFacts, Trace

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def trace(
    updates: Sequence[float] = (0.0,) * 5,
    gradients: Sequence[float] = (1.0,) * 5,
    *,
    rates: Sequence[float] = (0.1,) * 5,
    optimizer: OptimizerFacts | None = None,
    kind: str = "Linear",
    dtype: str = "float32",
    shape: tuple[int, ...] = (8, 8),
    norms: Sequence[float] = (2.0,) * 6,
    held: bool | None = True,
    requires_grad: bool = True,
    rest: tuple[int, ...] = (64, 64),
    **loop: object,
) -> Trace:
    """One layer with `updates`, and a larger one that moves."""
    return trace_of(
        observe("update_to_weight_ratio", "fc.weight", updates, module="fc"),
        observe("gradient_norm", "fc.weight", gradients, module="fc"),
        observe("weight_norm", "fc.weight", norms, module="fc", start=0),
        observe("update_to_weight_ratio", "out.weight", [1e-3] * 5, module="out"),
        observe("gradient_norm", "out.weight", [1.0] * 5, module="out"),
        observe("learning_rate", "", rates),
        modules=[ModuleFacts("fc", kind, 0), ModuleFacts("out", "Linear", 1)],
        parameters=[
            ParameterFacts("fc.weight", shape, dtype, "fc", requires_grad, in_optimizer=held),
            ParameterFacts("out.weight", rest, dtype, "out", in_optimizer=True),
        ],
        optimizer=optimizer or OptimizerFacts("SGD", ({"lr": max(rates, default=0.1)},)),
        loop=LoopFacts(**{"steps": 50, "backwards": 50, **loop}),  # type: ignore[arg-type]
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(WeightsUnchanged(), observed)]


ADAM = OptimizerFacts("AdamW", ({"lr": 1e-5},))


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(), [ERROR], id="never-moves"),
        pytest.param(trace(rates=[0, 0, 0.1, 0.1, 0.1]), [ERROR], id="after-a-warm-up-from-zero"),
        pytest.param(trace([0.0] * 3, [1.0] * 3), [ERROR], id="three-steps"),
        pytest.param(
            trace(dtype="bfloat16", rates=[1e-5] * 5, optimizer=ADAM, rest=(2, 2)),
            [ERROR],
            id="most-of-a-bfloat16-model",
        ),
        pytest.param(
            trace(dtype="bfloat16", rates=[1e-5] * 5, optimizer=ADAM),
            [WARNING],
            id="one-bfloat16-matrix",
        ),
        pytest.param(
            trace(dtype="bfloat16", rates=[1e-5] * 5, optimizer=ADAM, shape=(8,)),
            [NOTE],
            id="a-bfloat16-scale-at-one",
        ),
        pytest.param(trace([1e-3] * 5), [], id="moves"),
        pytest.param(trace([0, 0, 0, 0, 1e-3]), [], id="moves-at-last"),
        pytest.param(trace([float("nan")] * 5), [], id="starts-at-zero"),
        pytest.param(trace(gradients=[0.0] * 5), [], id="no-gradient"),
        pytest.param(trace(gradients=[float("inf")] * 5), [], id="skipped-by-a-scaler"),
        pytest.param(trace(rates=[0.0] * 5), [], id="rate-zero"),
        pytest.param(trace([0.0] * 5, rates=[0, 0, 0, 0.1, 0.1]), [], id="warm-up-from-zero"),
        pytest.param(trace([0.0] * 2, [1.0] * 2), [], id="two-steps"),
        pytest.param(trace(kind="Embedding"), [], id="rows-of-an-embedding"),
        pytest.param(trace(requires_grad=False), [], id="frozen"),
        pytest.param(trace(held=False), [], id="in-no-optimizer"),
        pytest.param(trace(norms=[2.0, 2.1, 2.2]), [], id="moved-between-steps"),
        pytest.param(trace(rates=[1e-9] * 5), [], id="float32-below-rounding"),
        pytest.param(
            trace(gradients=[1e-12] * 5, rates=[1e-3] * 5, optimizer=OptimizerFacts("Adam")),
            [],
            id="adam-below-its-eps",
        ),
        pytest.param(
            trace(optimizer=OptimizerFacts("SGD", ({"lr": 0.1}, {"lr": 0.0}))),
            [],
            id="a-group-at-rate-zero",
        ),
        pytest.param(trace(idle_optimizers=("Adam",)), [], id="an-idle-optimizer"),
        pytest.param(trace(by_hand=True), [], id="by-hand"),
        pytest.param(trace(optimizer=OptimizerFacts("SGD", probe=True)), [], id="our-own"),
        pytest.param(trace_of(observe("update_to_weight_ratio", "a", [0.0] * 5)), [], id="check"),
    ],
)
def test_what_is_pushed_is_to_move(observed, expected) -> None:
    assert severities(observed) == expected


def test_rounding_is_named_as_the_reason() -> None:
    observed = trace(dtype="bfloat16", rates=[1e-5] * 5, optimizer=ADAM, rest=(2, 2))

    (found,) = findings_of(WeightsUnchanged(), observed)

    assert found.message == (
        "fc.weight did not change in 5 steps with a gradient: the update is smaller than the "
        "precision of its bfloat16"
    )
    assert "float32" in found.help


def by_hand(
    updates: Sequence[float] = (0.0,) * 5,
    gradients: Sequence[float] = (1.0,) * 5,
    others: Sequence[float] = (1e-3,) * 5,
) -> Trace:
    """Two layers without an optimizer: one with `updates`, one with those of `others`."""
    return trace_of(
        *[observe("update_to_weight_ratio", f"{n}.weight", v, module=n)
          for n, v in (("fc", updates), ("out", others))],
        *[observe("gradient_norm", f"{n}.weight", v, module=n)
          for n, v in (("fc", gradients), ("out", [1.0] * 5))],
        *[observe("weight_norm", f"{n}.weight", [2.0] * 6, module=n, start=0)
          for n in ("fc", "out")],
        modules=[ModuleFacts("fc", "Linear", 0), ModuleFacts("out", "Linear", 1)],
        parameters=[ParameterFacts(f"{n}.weight", (8, 8), module=n) for n in ("fc", "out")],
        loop=LoopFacts(steps=50, backwards=50, by_hand=True),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(by_hand(), [ERROR], id="left-out"),
        pytest.param(by_hand((0.0,) * 2), [], id="two-steps"),
        pytest.param(by_hand((0.0, 0.0, 1e-3, 0.0, 0.0)), [], id="moves-at-times"),
        pytest.param(by_hand(gradients=(0.0,) * 5), [], id="no-gradient"),
        pytest.param(by_hand(gradients=(1e-5,) * 5), [], id="below-the-rounding-of-float32"),
        pytest.param(by_hand(others=(0.0,) * 5), [], id="nothing-moves"),
    ],
)
def test_updates_by_hand_that_leave_a_parameter_out_are_found(observed, expected) -> None:
    assert severities(observed) == expected


def test_a_frozen_parameter_that_the_optimizer_holds_is_to_stay() -> None:
    assert list(WeightsUnchanged().check(trace(requires_grad=False))) == []


def test_a_parameter_whose_norm_changed_was_updated_between_the_looks() -> None:
    observed = by_hand()
    lost = next(iter(findings_of(WeightsUnchanged(), observed))).parameter
    assert lost is not None

    changed = observe("weight_norm", lost, [2.0, 2.5], start=7)

    assert not findings_of(WeightsUnchanged(), observed.but(observations=(*observed, *changed)))


def put_back(*layers: tuple[str, int, Sequence[float]]) -> Trace:
    """Layers that move, by name, size and the share of each update that is kept."""
    return trace_of(
        *[observe("kept_update_share", f"{n}.weight", kept, module=n) for n, _, kept in layers],
        *[observe("update_to_weight_ratio", f"{n}.weight", [1e-3] * 5, module=n)
          for n, _, _ in layers],
        modules=[ModuleFacts(n, "Linear", i) for i, (n, _, _) in enumerate(layers)],
        parameters=[
            ParameterFacts(f"{n}.weight", (size, 8), module=n, in_optimizer=True)
            for n, size, _ in layers
        ],
        optimizer=OptimizerFacts("SGD", ({"lr": 0.1},)),
        loop=LoopFacts(steps=50, backwards=50),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(put_back(("fc", 8, [0.0, 0.0])), [ERROR], id="all-of-it"),
        pytest.param(put_back(("fc", 8, [0.02, 0.02])), [ERROR], id="a-fiftieth-is-left"),
        pytest.param(put_back(("fc", 8, [0.021, 0.0])), [], id="more-is-left"),
        pytest.param(put_back(("fc", 8, [0.0])), [], id="measured-once"),
        pytest.param(put_back(("fc", 8, [0.0] * 2), ("out", 7, [1.0] * 2)), [ERROR], id="most"),
        pytest.param(put_back(("fc", 8, [0.0] * 2), ("out", 8, [1.0] * 2)), [WARNING], id="half"),
        pytest.param(put_back(("fc", 8, [1.0] * 4)), [], id="nothing-is-put-back"),
        pytest.param(put_back(("fc", 8, [float("nan")] * 4)), [], id="held-by-a-bound"),
    ],
)
def test_weights_that_are_put_back_between_steps_are_found(observed, expected) -> None:
    assert severities(observed) == expected


def test_the_message_tells_how_much_is_left() -> None:
    layers = ("fc", 8, [0.0, 0.001]), ("out", 8, [0.001, 0.0011])

    (found,) = findings_of(WeightsUnchanged(), put_back(*layers))

    assert found.message == (
        "fc.weight (and 1 more) is put back between steps: at most 0.1% of what the optimizer "
        "changes is left when its next step begins"
    )
    assert found.modules == ("fc", "out")
    assert (
        "nothing of what"
        in findings_of(WeightsUnchanged(), put_back(("fc", 8, [0.0] * 2)))[0].message
    )
