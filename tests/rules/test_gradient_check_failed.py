"""GL503: a custom function whose backward contradicts its forward."""

from __future__ import annotations

import pytest

from gradlint.finding import Source
from gradlint.graph import Operation
from gradlint.rules.gradient_check_failed import GradientCheckFailed
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Trace


def compared(sloped: int, against: int, flat: int, name: str = "Clamp") -> Trace:
    seen = {name: {"sloped": sloped, "against": against, "flat": flat}}
    source = Source("net.py", 7)
    ops = (
        Operation(0, "custom", "OtherBackward", "0"),
        Operation(1, "custom", "ClampBackward", "1", source=source),
    )
    return trace_of(operations=ops, probes={"custom-derivatives": seen})


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(compared(300, 300, 200), True, id="inverted"),
        pytest.param(compared(300, 0, 200), False, id="straight-through"),
        pytest.param(compared(300, 270, 200), False, id="exactly-at-the-limit"),
        pytest.param(compared(300, 271, 200), True, id="just-above"),
        pytest.param(compared(16, 16, 16), True, id="just-enough-entries"),
        pytest.param(compared(15, 15, 200), False, id="few-slopes"),
        pytest.param(compared(300, 300, 15), False, id="nothing-passes-where-it-is-flat"),
        pytest.param(trace_of(), False, id="not-compared"),
    ],
)
def test_flags_what_is_against_where_it_slopes_and_passes_where_it_is_flat(
    trace: Trace, flagged: bool
) -> None:
    assert bool(findings_of(GradientCheckFailed(), trace)) is flagged


def test_the_message_counts_and_names_the_place() -> None:
    (found,) = findings_of(GradientCheckFailed(), compared(300, 290, 200))

    assert found.message == (
        "Clamp.backward has no gradient, or one of the wrong sign, at 290 of the 300 entries at "
        "which forward rises or falls, and passes one at 200 at which it is flat"
    )
    assert (found.module, found.source) == ("1", Source("net.py", 7))


def test_a_function_that_the_graph_does_not_hold_is_the_model_s() -> None:
    (found,) = findings_of(GradientCheckFailed(), compared(300, 290, 200, "Gone"))

    assert (found.module, found.source) == ("", None)


def test_is_skipped_where_nothing_was_compared() -> None:
    assert GradientCheckFailed().skip_reason(trace_of()) == (
        "no function of the user's own was compared with differences"
    )
