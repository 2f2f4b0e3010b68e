from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.redundant_bias import RedundantBias
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, ParameterFacts, Trace


def trace(
    *kinds: str,
    shape: tuple[int, ...] = (8, 16, 4, 4),
    bias: bool = True,
    weighted: str = "conv",
    norm: str = "BatchNorm2d",
    training: bool = True,
    normed: tuple[int, ...] | None = None,
) -> Trace:
    parameters = ("0.weight", "0.bias") if bias else ("0.weight",)
    first = Operation(0, weighted, weighted, "0", parameters=parameters, shape=shape)
    rest = [
        Operation(
            i,
            kind,
            kind,
            str(i),
            (i - 1,),
            shape=(normed or shape) if kind == "batch_norm" else shape,
            attributes={"training": training} if kind == "batch_norm" else {},
        )
        for i, kind in enumerate(kinds, 1)
    ]
    modules = [
        ModuleFacts(str(i), norm, i) for i, kind in enumerate(kinds, 1) if kind == "batch_norm"
    ]
    facts = (
        ParameterFacts("0.weight", (16, 3, 3, 3), module="0"),
        ParameterFacts("0.bias", (16,), module="0"),
    )
    return trace_of(operations=(first, *rest), modules=modules, parameters=facts)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace("batch_norm", "relu"), True, id="conv"),
        pytest.param(trace("batch_norm", shape=(8, 16), weighted="linear"), True, id="linear"),
        pytest.param(trace("batch_norm", bias=False), False, id="no-bias"),
        pytest.param(trace("relu", "batch_norm"), False, id="an-activation-between"),
        pytest.param(trace("layer_norm"), False, id="over-features"),
        pytest.param(trace("batch_norm", training=False), False, id="eval-mode"),
        pytest.param(
            trace("batch_norm", shape=(8, 16, 16), weighted="linear"),
            False,
            id="normalized-over-another-axis",
        ),
        pytest.param(
            trace(
                "transpose", "batch_norm", shape=(8, 7, 16), weighted="linear", normed=(8, 16, 7)
            ),
            True,
            id="transposed",
        ),
        pytest.param(trace("view", "batch_norm", norm="InstanceNorm2d"), True, id="instance-norm"),
        pytest.param(trace(), False, id="nothing-behind-it"),
    ],
)
def test_a_bias_that_is_subtracted_again_is_noted(observed, flagged) -> None:
    found = findings_of(RedundantBias(), observed)

    assert [f.severity for f in found] == ([Severity.NOTE] if flagged else [])


def test_a_bias_that_is_also_read_elsewhere_is_silent() -> None:
    observed = trace("batch_norm")
    branch = Operation(2, "relu", "relu", "2", (0,))

    assert findings_of(RedundantBias(), trace_of(
        operations=(*observed.graph, branch), parameters=observed.parameters.values()
    )) == ()  # fmt: skip


def test_the_message_names_bias_and_normalization() -> None:
    (found,) = findings_of(RedundantBias(), trace("batch_norm"))

    assert (
        found.message == "0.bias has no effect: the normalization 1 subtracts each channel's mean"
    )
    assert found.parameter == "0.bias"


def test_a_layer_used_twice_is_noted_once() -> None:
    observed = trace("batch_norm")
    conv, norm = observed.graph
    again = (replace(conv, id=2), replace(norm, id=3, inputs=(2,)))
    twice = observed.but(graph=Graph((conv, norm, *again)))

    assert len(list(RedundantBias().check(twice))) == 1


@pytest.mark.parametrize(
    ("conv", "norm", "kind"),
    [
        pytest.param((), (8, 16, 4, 4), "InstanceNorm2d", id="layer-unknown"),
        pytest.param((8, 16, 4, 4), (), "BatchNorm2d", id="normalization-unknown"),
        pytest.param((8, 16, 4, 4), (8, 4, 16, 4), "BatchNorm2d", id="over-other-channels"),
    ],
)
def test_shapes_that_do_not_fit_are_silent(
    conv: tuple[int, ...], norm: tuple[int, ...], kind: str
) -> None:
    observed = trace("batch_norm", norm=kind)
    first, second = observed.graph
    graph = Graph((replace(first, shape=conv), replace(second, shape=norm)))

    assert findings_of(RedundantBias(), observed.but(graph=graph)) == ()
