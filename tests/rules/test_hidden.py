"""Which activations are hidden ones."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.graph import Operation
from gradlint.rules._hidden import hidden_activations
from gradlint.testing import trace_of


def sites(last: str = "linear", **changes: Any) -> list[str]:
    settings: dict[str, Any] = {"kind": "relu", "site": "act", **changes}
    operations = (
        Operation(0, "linear", "", "fc"),
        Operation(1, name="", module="act", inputs=(0,), **settings),
        Operation(2, last, "", "head", (1,), in_loss=last == "mse"),
    )
    return [op.site for op in hidden_activations(trace_of(operations=operations))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, ["act"], id="in-front-of-a-layer"),
        pytest.param({"last": "mse"}, [], id="the-output"),
        pytest.param({"last": "mse", "in_loss": True}, [], id="in-the-loss"),
        pytest.param({"attributes": {"gate": True}}, [], id="a-gate"),
        pytest.param({"kind": "linear"}, [], id="no-activation"),
    ],
)
def test_an_activation_is_hidden_that_is_no_gate_and_no_output(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert sites(**changes) == expected


def test_a_site_that_is_used_twice_is_one_activation() -> None:
    operations = tuple(
        Operation(i, "relu", "", "act", (i - 1,) if i else (), site="act") for i in range(3)
    )

    assert hidden_activations(trace_of(operations=operations)) == operations[:1]
