"""GL612: causal models that look ahead."""

from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.future_leakage import FutureLeakage
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Trace


def trace(leak: float, module: str | None = "h.0.attention", **more: bool) -> Trace:
    seen = {"leak": leak, "change": 0.8, "position": 8, "length": 16, "module": module, **more}
    return trace_of(probes={"future-leakage": seen})


@pytest.mark.parametrize(
    ("leak", "flagged"),
    [
        pytest.param(0.3, True, id="looks-ahead"),
        pytest.param(2e-4, True, id="looks-ahead-a-little"),
        pytest.param(1e-4, False, id="exactly-at-the-limit"),
        pytest.param(1e-7, False, id="rounding"),
        pytest.param(0.0, False, id="causal"),
    ],
)
def test_a_change_beyond_rounding_is_flagged(leak: float, flagged: bool) -> None:
    assert bool(findings_of(FutureLeakage(), trace(leak))) is flagged


def test_models_that_are_not_declared_causal_are_skipped() -> None:
    assert FutureLeakage().skip_reason(trace_of()) == (
        "no model of the next token whose later tokens could be exchanged"
    )


def test_it_is_an_error_that_names_place_and_size() -> None:
    (found,) = findings_of(FutureLeakage(), trace(0.314))

    assert found.severity is Severity.ERROR
    assert found.exact
    assert found.module == "h.0.attention"
    assert found.message == (
        "exchanging the tokens from position 8 on changes the outputs before by 0.31 of their "
        "size, first in h.0.attention (limit 1e-04)"
    )


def test_without_a_module_the_model_is_named() -> None:
    (found,) = findings_of(FutureLeakage(), trace(0.3, None))

    assert found.module == ""
    assert "first in" not in found.message


@pytest.mark.parametrize("no_decoder", [True, False])
def test_a_masked_family_is_told_what_to_set(no_decoder: bool) -> None:
    (found,) = findings_of(FutureLeakage(), trace(0.3, no_decoder=no_decoder))

    assert ("is_decoder=True" in found.help) is no_decoder
