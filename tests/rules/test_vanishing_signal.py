"""GL103: activations that shrink with depth."""

from __future__ import annotations

import math

import pytest

from gradlint.finding import Severity
from gradlint.rules.vanishing_signal import VanishingSignal
from gradlint.testing import chain, findings_of, observe, trace_of
from gradlint.trace import Trace


def deep(values: list[float], between: str = "relu", **facts: object) -> Trace:
    """A chain of linear layers whose outputs have these RMS values at step 0."""
    kinds = ["linear", between] * len(values)
    seen = [
        observe("activation_rms", str(2 * i), [v, v, v], depth=i, step=0)
        for i, v in enumerate(values)
    ]
    return trace_of(*seen, operations=chain(*kinds), **facts)


def stairs(factor: float) -> list[float]:
    """Four layers in twelve that change the signal."""
    return [factor ** (i // 3) for i in range(13)]


def falling(factor: float, layers: int) -> list[float]:
    return [factor**i for i in range(layers)]


@pytest.mark.parametrize(
    ("values", "severity"),
    [
        pytest.param(falling(0.7, 50), Severity.ERROR, id="figure-7.7-sigma2-0.01"),
        pytest.param(falling(0.22, 50), Severity.ERROR, id="figure-7.7-sigma2-0.001"),
        pytest.param(falling(0.5, 9), Severity.WARNING, id="two-decades-without-one-layer"),
        pytest.param(falling(0.1, 4), None, id="too-few-layers"),
        pytest.param([1.0, 1.0, 1.0, 1.0, 1.0, 1e-6], None, id="single-small-layer"),
        pytest.param([1.0, 0.9, 1.0, 1e-3, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6], None, id="two-steps"),
        pytest.param(stairs(0.1), None, id="one-layer-in-three"),
        pytest.param(falling(0.95, 50), None, id="one-decade-over-fifty-layers"),
        pytest.param([1.0] * 50, None, id="level"),
        pytest.param([*falling(0.1, 6), 0.0, 0.0], Severity.ERROR, id="ends-in-zeros"),
        pytest.param([1.0] * 6 + [0.0], None, id="zero-initialized-last-layer"),
        pytest.param([0.0] * 8, None, id="zero-throughout"),
        pytest.param([*falling(0.1, 8), 0.05], Severity.ERROR, id="last-bias-lifts-it"),
        pytest.param([], None, id="nothing-observed"),
    ],
)
def test_flags_a_geometric_fall_shared_by_many_layers(
    values: list[float], severity: Severity | None
) -> None:
    found = findings_of(VanishingSignal(), deep(values))

    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_exactly_at_the_limit_is_silent() -> None:
    rule = VanishingSignal(warning_below=10.0**-2, min_layers=4)
    at = [1.0, 1e-1, 1e-2, 1e-3]

    assert not findings_of(rule, deep(at))
    assert findings_of(rule, deep([1.0, 1e-1, 1e-2, 0.9e-3, 0.8e-4]))


def test_only_ratios_count_not_the_inputs_scale() -> None:
    assert not findings_of(VanishingSignal(), deep([255.0] * 20))
    assert findings_of(VanishingSignal(), deep([255.0 * v for v in falling(0.5, 20)]))


@pytest.mark.parametrize("between", ["layer_norm", "batch_norm", "add", "mul", "softmax", "custom"])
def test_a_normalization_a_join_or_the_unknown_ends_the_chain(between: str) -> None:
    assert not findings_of(VanishingSignal(), deep(falling(0.5, 30), between))


def test_loaded_weights_are_not_judged() -> None:
    assert not findings_of(VanishingSignal(), deep(falling(0.5, 30), pretrained=True))


def test_a_single_bad_batch_is_outvoted() -> None:
    values = falling(0.5, 30)
    seen = [
        observe("activation_rms", str(2 * i), [1.0, v, 1.0], depth=i, step=0)
        for i, v in enumerate(values)
    ]
    trace = trace_of(*seen, operations=chain(*["linear", "relu"] * 30))

    assert not findings_of(VanishingSignal(), trace)


def test_training_steps_do_not_count() -> None:
    seen = [
        observe("activation_rms", str(2 * i), [v], step=1) for i, v in enumerate(falling(0.5, 30))
    ]
    trace = trace_of(*seen, operations=chain(*["linear", "relu"] * 30))

    assert not findings_of(VanishingSignal(), trace)


def test_the_message_names_the_fall_and_the_layers() -> None:
    (found,) = findings_of(VanishingSignal(), deep(falling(0.5, 11)))

    assert found.message == (
        "activation RMS falls from 1 to 0.00098 over 11 weight layers: 0.5 times a layer "
        "(limit 1e-02 over all)"
    )
    assert found.module == "0"
    assert found.modules == tuple(str(2 * i) for i in range(11))
    assert math.isclose(found.evidence["ratio"], 0.5**10)
