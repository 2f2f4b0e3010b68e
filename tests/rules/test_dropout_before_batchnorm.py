from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph
from gradlint.rules.dropout_before_batchnorm import DropoutBeforeBatchnorm
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import ModuleFacts, Trace


def trace(*kinds: str, rate: float = 0.5, training: bool = True) -> Trace:
    """A chain in which every "mask" is the product that a Dropout module makes on a CPU."""
    modules = [
        ModuleFacts(str(i), "Dropout", i, 1, training, options={"p": rate})
        for i, kind in enumerate(kinds)
        if kind == "mask"
    ]
    return trace_of(operations=chain(*kinds), modules=modules)


@pytest.mark.parametrize(
    ("observed", "flagged"),
    [
        pytest.param(trace("linear", "mask", "batch_norm"), True, id="directly"),
        pytest.param(
            trace("linear", "dropout", "linear", "relu", "batch_norm"), True, id="through-weights"
        ),
        pytest.param(trace("linear", "batch_norm", "mask", "linear"), False, id="behind-it"),
        pytest.param(
            trace("linear", "mask", "layer_norm", "linear", "batch_norm"),
            False,
            id="another-normalization-between",
        ),
        pytest.param(trace("linear", "mask", "batch_norm", rate=0.0), False, id="rate-zero"),
        pytest.param(trace("linear", "mask", "batch_norm", training=False), False, id="eval-mode"),
        pytest.param(trace("linear", "mask"), False, id="no-batchnorm"),
        pytest.param(
            trace_of(operations=chain("linear", "mask", "batch_norm")), False, id="only-a-mask"
        ),
    ],
)
def test_dropout_that_reaches_a_batchnorm_is_noted(observed, flagged) -> None:
    found = findings_of(DropoutBeforeBatchnorm(), observed)

    assert [f.severity for f in found] == ([Severity.NOTE] if flagged else [])


def test_the_message_names_both() -> None:
    (found,) = findings_of(DropoutBeforeBatchnorm(), trace("linear", "mask", "batch_norm"))

    assert (
        found.message
        == "the dropout of 1 feeds the BatchNorm 2: its variance differs in evaluation"
    )


def test_a_batchnorm_with_fixed_statistics_is_silent() -> None:
    observed = trace("linear", "mask", "batch_norm")
    *before, norm = observed.graph
    fixed = replace(norm, attributes={"training": False})

    assert findings_of(DropoutBeforeBatchnorm(), observed)
    assert not findings_of(DropoutBeforeBatchnorm(), observed.but(graph=Graph((*before, fixed))))
