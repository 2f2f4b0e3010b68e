"""GL111: biases that outweigh the signal at step 0."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.graph import Graph, Operation
from gradlint.rules.nonzero_bias_init import NonzeroBiasInit
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, ParameterFacts, Trace


def layer(
    rms: float | list[float] | None,
    spread: float | None = 1.0,
    *,
    std: float | None = 0.0,
    activation: str = "relu",
    gate: bool = False,
    leaf: bool = True,
    **facts: Any,
) -> Trace:
    """A bias of this RMS and standard deviation; the pre-activation's is `spread`."""
    sizes = [] if rms is None else rms if isinstance(rms, list) else [rms] * 3
    return trace_of(
        observe("weight_rms", "fc.bias", sizes, step=0),
        observe("weight_std", "fc.bias", [] if std is None else [std], step=0),
        observe("activation_std", "fc", [] if spread is None else [spread] * 3, step=0),
        operations=(
            Operation(0, "linear", "", "fc", parameters=("fc.bias", "fc.weight"), site="fc"),
            Operation(1, activation, "", "act", inputs=(0,), attributes={"gate": gate}),
        ),
        modules=[ModuleFacts("fc", "Linear", leaf=leaf)],
        parameters=[ParameterFacts("fc.weight", (8, 8)), ParameterFacts("fc.bias", (8,))],
        **facts,
    )


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(layer(10.0), True, id="ten-times-the-signal"),
        pytest.param(layer(10.0, 10.05, std=10.0), True, id="random-and-large"),
        pytest.param(layer(1.0, 0.1), False, id="rms-at-the-limit"),
        pytest.param(layer(1.1, 0.1), True, id="rms-just-above"),
        pytest.param(layer(2.0, 1.0), False, id="ratio-at-the-limit"),
        pytest.param(layer(2.1, 1.0), True, id="ratio-just-above"),
        pytest.param(layer(50.0, 400.0), False, id="large-signal-as-well"),
        pytest.param(layer(0.58, 0.1), False, id="torch-default-of-one-input"),
        pytest.param(layer([0.1, 10.0, 0.1]), False, id="one-odd-value"),
        pytest.param(layer(10.0, None), False, id="signal-not-observed"),
        pytest.param(layer(10.0, std=None), False, id="spread-not-observed"),
        pytest.param(layer(None), False, id="nothing-observed"),
    ],
)
def test_flags_biases_larger_than_what_they_shift(trace: Trace, flagged: bool) -> None:
    assert bool(findings_of(NonzeroBiasInit(), trace)) is flagged


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "sigmoid"},
        {"activation": "softplus"},
        {"activation": "layer_norm"},
        {"activation": "nll"},
        {"gate": True},
        {"leaf": False},
        {"pretrained": True},
    ],
    ids=["gate", "step-size", "normalized", "output", "marked-gate", "container", "loaded"],
)
def test_silent_where_a_bias_is_set_on_purpose(changes: dict[str, Any]) -> None:
    assert not findings_of(NonzeroBiasInit(), layer(10.0, **changes))


def test_the_message_names_bias_and_signal() -> None:
    (found,) = findings_of(NonzeroBiasInit(), layer(10.0, 0.61))

    assert found.message == (
        "bias in front of ReLU has an RMS of 10 at step 0 where the weighted input varies by "
        "0.61 (limit 2 times)"
    )
    assert (found.module, found.parameter) == ("fc", "fc.bias")


def test_a_layer_without_bias_is_silent() -> None:
    trace = layer(10.0)
    linear, activation = trace.graph
    bare = Graph((replace(linear, parameters=("fc.weight",)), activation))

    assert not findings_of(NonzeroBiasInit(), trace.but(graph=bare))
