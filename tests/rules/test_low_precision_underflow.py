"""GL502 low-precision-underflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gradlint.rules.low_precision_underflow import LowPrecisionUnderflow
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, ParameterFacts, ScalerFacts, Trace


def half(shares: list[float], initial: Sequence[float] = (), **facts: Any) -> Trace:
    return trace_of(
        observe("underflow_share", "fc", initial, step=0),
        observe("underflow_share", "fc", shares),
        modules=[ModuleFacts("fc", "Linear"), ModuleFacts("", "Net", leaf=False)],
        parameters=[ParameterFacts("fc.weight", dtype="float16", module="fc")],
        **facts,
    )


def flagged(trace: Trace) -> bool:
    return bool(findings_of(LowPrecisionUnderflow(), trace))


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        pytest.param([0.9] * 5, True, id="mostly-lost"),
        pytest.param([0.5] * 5, False, id="exactly-at-the-limit"),
        pytest.param([0.9] * 2, False, id="too-few-steps"),
        pytest.param([0.0, 0.0, 0.9, 0.9, 0.0], False, id="median-not-maximum"),
        pytest.param([0.0] * 40, False, id="float32-or-bfloat16"),
        pytest.param([], False, id="nothing-seen"),
    ],
)
def test_flags_layers_whose_gradient_is_mostly_lost(shares: list[float], expected: bool) -> None:
    assert flagged(half(shares)) is expected


def test_initialization_speaks_where_nothing_was_trained() -> None:
    assert flagged(half([], [0.9] * 3))
    assert not flagged(half([0.0] * 5, [0.9] * 3))


def test_a_scaler_that_searches_its_scale_is_given_time() -> None:
    loop = LoopFacts(steps=20, scaler=ScalerFacts(65536.0, 65536.0, 20, 2, 0))

    assert not flagged(half([0.9] * 10 + [0.0] * 10, loop=loop))
    assert flagged(half([0.9] * 20, loop=loop))


def test_autocast_under_check_lacks_the_scaler_of_the_loop() -> None:
    trace = half([0.9] * 5).but(parameters={"fc.weight": ParameterFacts("fc.weight", module="fc")})

    (found,) = findings_of(LowPrecisionUnderflow(), trace)
    (alarm,) = findings_of(
        LowPrecisionUnderflow(), trace.but(facts=half([], loop=LoopFacts()).facts)
    )

    assert found.severity.label == "note"
    assert alarm.severity.label == "warning"


def test_weight_gradients_speak_too_and_a_layer_once() -> None:
    weights = observe(
        "gradient_underflow_share", "fc.weight", [0.8] * 4, kind="parameter", module="fc"
    )
    (found,) = findings_of(LowPrecisionUnderflow(), trace_of(weights, loop=LoopFacts()))
    both = trace_of(weights, half([0.9] * 4), loop=LoopFacts())

    assert found.parameter == "fc.weight"
    assert len(findings_of(LowPrecisionUnderflow(), both)) == 1


def test_containers_are_left_to_their_parts() -> None:
    trace = trace_of(
        observe("underflow_share", "", [0.9] * 5, kind="Net"),
        modules=[ModuleFacts("", "Net", leaf=False)],
    )

    assert not flagged(trace)


def test_the_message_holds_share_scale_and_limit() -> None:
    loop = LoopFacts(steps=8, scaler=ScalerFacts(65536.0, 128.0, 8, 1, 0))

    (found,) = findings_of(LowPrecisionUnderflow(), half([0.87] * 8, loop=loop))

    assert found.message == (
        "87% of the gradient's squared norm is in entries of two bits or less, next to the "
        "format's zero at a loss scale of 128 (limit 50%)"
    )
    assert found.module == "fc"


def zeros(norms: list[float], losses: list[float], dtype: str = "float16") -> Trace:
    return trace_of(
        observe("total_gradient_norm", "", norms),
        observe("loss", "", losses),
        observe("underflow_share", "fc", [0.0] * len(norms)),
        parameters=[ParameterFacts("fc.weight", dtype=dtype, module="fc")],
    )


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(zeros([0.0] * 3, [1.0] * 3), True, id="nothing-left"),
        pytest.param(zeros([0.0, 0.0, 1e-6], [1.0] * 3), False, id="something-left"),
        pytest.param(zeros([0.0] * 3, [0.0] * 3), False, id="a-loss-of-zero-has-no-gradient"),
        pytest.param(zeros([0.0] * 3, [1.0] * 3, "float32"), False, id="float32"),
        pytest.param(zeros([0.0] * 2, [1.0] * 2), False, id="too-few-steps"),
    ],
)
def test_a_model_without_any_gradient_has_lost_them_all(trace: Trace, expected: bool) -> None:
    assert flagged(trace) is expected


def test_a_layer_whose_weights_lose_theirs_too_is_named_once() -> None:
    weights = observe(
        "gradient_underflow_share", "fc.weight", [0.8] * 4, kind="parameter", module="fc"
    )
    both = trace_of(weights, half([0.9] * 4), loop=LoopFacts())

    assert len(list(LowPrecisionUnderflow().check(both))) == 1


def test_a_model_in_half_precision_under_check_is_a_warning() -> None:
    (found,) = findings_of(LowPrecisionUnderflow(), half([0.9] * 5))

    assert found.severity.label == "warning"
