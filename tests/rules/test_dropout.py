"""Which operations are dropout."""

from __future__ import annotations

import pytest

from gradlint.graph import Operation
from gradlint.rules._dropout import is_dropout, rate
from gradlint.testing import trace_of
from gradlint.trace import ModuleFacts

DROPOUT = ModuleFacts("drop", "Dropout2d", options={"p": 0.3})
EVALUATED = ModuleFacts("drop", "Dropout", training=False, options={"p": 0.3})
IDLE = ModuleFacts("drop", "Dropout", options={"p": 0.0})
CUSTOM = ModuleFacts("drop", "DropoutNet")
OTHER = ModuleFacts("drop", "Masked", options={"p": 0.3})


@pytest.mark.parametrize(
    ("kind", "module", "expected", "drops"),
    [
        pytest.param("mask", DROPOUT, 0.3, True, id="a-product-with-a-mask"),
        pytest.param("dropout", DROPOUT, 0.3, True, id="one-operation"),
        pytest.param("linear", DROPOUT, None, False, id="a-layer-inside-it"),
        pytest.param("mask", OTHER, None, False, id="another-product"),
        pytest.param("mask", EVALUATED, None, False, id="in-eval-mode"),
        pytest.param("mask", IDLE, 0.0, False, id="of-rate-zero"),
        pytest.param("mask", CUSTOM, None, False, id="rate-unknown"),
        pytest.param("dropout", CUSTOM, None, True, id="one-operation-of-unknown-rate"),
    ],
)
def test_dropout_is_told_by_its_module_or_its_kind(
    kind: str, module: ModuleFacts, expected: float | None, drops: bool
) -> None:
    operation = Operation(0, kind, kind, "drop")
    trace = trace_of(modules=[module])

    assert rate(trace, operation) == expected
    assert is_dropout(trace, operation) is drops


def test_dropout_as_a_function_has_no_known_rate() -> None:
    function = Operation(0, "dropout", "dropout", None)

    assert rate(trace_of(), function) is None
    assert is_dropout(trace_of(), function)
