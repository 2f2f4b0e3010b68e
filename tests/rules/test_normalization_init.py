"""GL109: normalizations that do not start as the identity."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules.normalization_init import NormalizationInit
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, Trace


def norm(
    scale: float | list[float] | None = 1.0,
    shift: float | None = 0.0,
    *,
    kind: str = "LayerNorm",
    read_by: str = "linear",
    spread: float | None = None,
    ours: bool = False,
    calls: int = 1,
    **facts: Any,
) -> Trace:
    """One normalization ``n`` whose γ and β have these RMS values at step 0."""
    scales = [] if scale is None else scale if isinstance(scale, list) else [scale] * 3
    return trace_of(
        observe("weight_rms", "n.weight", scales, step=0),
        observe("weight_rms", "n.bias", [] if shift is None else [shift], step=0),
        observe("activation_std", "n", [] if spread is None else [spread], step=0),
        operations=(
            Operation(0, "layer_norm", "", "n", missing=1),
            Operation(1, "dropout", "", "d", inputs=(0,)),
            Operation(2, read_by, "", "next", inputs=(1,)),
        ),
        modules=[ModuleFacts("n", kind, calls=calls, ours=ours)],
        **facts,
    )


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(norm(0.02), True, id="far-too-small"),
        pytest.param(norm(0.5), False, id="small-at-the-limit"),
        pytest.param(norm(0.49), True, id="small-just-below"),
        pytest.param(norm(10.0), False, id="large-at-the-limit"),
        pytest.param(norm(10.1), True, id="large-just-above"),
        pytest.param(norm(1.0, 1.0), False, id="shift-at-the-limit"),
        pytest.param(norm(1.0, 1.1), True, id="shift-above"),
        pytest.param(norm(1.0002), False, id="dcgan"),
        pytest.param(norm([1.0, 0.02, 1.0]), False, id="one-odd-value"),
        pytest.param(norm(None, None), False, id="nothing-observed"),
        pytest.param(norm(0.0), True, id="zero-and-no-residual"),
    ],
)
def test_flags_scales_and_shifts_far_from_the_identity(trace: Trace, flagged: bool) -> None:
    assert bool(findings_of(NormalizationInit(), trace)) is flagged


@pytest.mark.parametrize("read_by", ["add", "shift", "mul", "matmul", "attention"])
def test_a_small_scale_in_front_of_a_join_is_a_choice(read_by: str) -> None:
    assert not findings_of(NormalizationInit(), norm(0.0, read_by=read_by))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "GemmaRMSNorm"},
        {"kind": "RMSNorm", "ours": True},
        {"spread": 1.0},
        {"calls": 0},
        {"pretrained": True},
    ],
    ids=["one-plus-weight", "of-the-user-s-own", "output-is-of-size-one", "unused", "loaded"],
)
def test_silent_where_the_scale_is_not_what_the_signal_feels(changes: dict[str, Any]) -> None:
    assert not findings_of(NormalizationInit(), norm(0.0, **changes))


def test_a_small_scale_that_the_first_batch_went_past_is_not_judged() -> None:
    seen, past = norm(0.0), Graph((Operation(0, "linear", "", "other"),))
    assert findings_of(NormalizationInit(), seen)
    assert not findings_of(NormalizationInit(), seen.but(graph=past))
    assert findings_of(NormalizationInit(), norm(20.0).but(graph=past))
    assert findings_of(NormalizationInit(), seen.but(graph=Graph()))


def test_a_small_scale_that_the_output_shows_is_flagged() -> None:
    assert findings_of(NormalizationInit(), norm(0.05, spread=0.05))


def test_the_message_names_the_layer_and_the_size() -> None:
    (found,) = findings_of(NormalizationInit(), norm(0.0461, kind="BatchNorm1d"))

    assert found.message == (
        "BatchNorm1d's scale has an RMS of 0.046 where 1 is the identity, at step 0 (limit 0.5)"
    )
    assert (found.module, found.parameter) == ("n", "n.weight")


def test_the_message_of_a_shift_names_the_bias() -> None:
    (found,) = findings_of(NormalizationInit(), norm(1.0, 3.0))

    assert found.message == (
        "LayerNorm's shift has an RMS of 3 where 0 is the identity, at step 0 (limit 1)"
    )
    assert found.parameter == "n.bias"
