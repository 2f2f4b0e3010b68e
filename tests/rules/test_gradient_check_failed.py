"""GL503: a custom function whose backward contradicts its forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gradlint.finding import Severity, Source
from gradlint.graph import Operation
from gradlint.rules.gradient_check_failed import GradientCheckFailed
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Trace

OPERATIONS = (
    Operation(0, "custom", "OtherBackward", "0"),
    Operation(1, "custom", "ClampBackward", "1", source=Source("net.py", 7)),
)


def seen(name: str = "Clamp", *, slopes: Mapping[str, Any] | None = None, **of_x: float) -> Trace:
    entries = {"sloped": 0, "against": 0, "flat": 0, "along": 1.0, "agreeing": 0, "opposite": 0}
    both = {"entries": {"x": {**entries, **of_x}} if of_x else {}, "slopes": slopes or {}}
    return trace_of(operations=OPERATIONS, probes={"custom-derivatives": {name: both}})


def compared(sloped: int, against: int, flat: int, name: str = "Clamp") -> Trace:
    return seen(name, sloped=sloped, against=against, flat=flat)


def mixed(agreeing: int, opposite: int, along: float = 0.5) -> Trace:
    return seen(agreeing=agreeing, opposite=opposite, along=along)


def slope(
    cosine: float = 1.0, *, curved: bool = True, right: bool = False, opposed: bool = False
) -> Mapping[str, Any]:
    return {"cosine": cosine, "curved": curved, "right": right, "opposed": opposed}


RIGHT = slope(right=True)
LINE = slope(right=True, curved=False)
OPPOSED = slope(-1.0, opposed=True)


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


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(mixed(60, 40), True, id="both-signs"),
        pytest.param(mixed(900, 100), True, id="just-enough-of-the-wrong-one"),
        pytest.param(mixed(901, 99), False, id="few-of-the-wrong-one"),
        pytest.param(mixed(100, 900), True, id="just-enough-of-the-right-one"),
        pytest.param(mixed(99, 901), False, id="few-of-the-right-one"),
        pytest.param(mixed(16, 16), True, id="just-enough-entries"),
        pytest.param(mixed(16, 15), False, id="few-entries"),
        pytest.param(mixed(60, 40, 0.9), False, id="along-the-slope"),
        pytest.param(mixed(60, 40, 0.89), True, id="just-not-along-the-slope"),
        pytest.param(mixed(60, 40, float("nan")), False, id="no-cosine"),
    ],
)
def test_flags_both_signs_where_forward_has_one(trace: Trace, flagged: bool) -> None:
    found = findings_of(GradientCheckFailed(), trace)

    assert [each.severity for each in found] == [Severity.ERROR] * flagged


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(seen(turned=True, sloped=500, along=0.87), True, id="turned"),
        pytest.param(seen(turned=True, sloped=500, along=0.9998), True, id="hardly-curved"),
        pytest.param(seen(turned=True, sloped=500, along=0.9999), False, id="straight"),
        pytest.param(seen(turned=True, sloped=500, along=-0.9999), False, id="a-reversed-power"),
        pytest.param(seen(turned=True, sloped=16, along=0.87), True, id="just-enough-entries"),
        pytest.param(seen(turned=True, sloped=15, along=0.87), False, id="few-entries"),
        pytest.param(seen(turned=False, sloped=500, along=0.87), False, id="another-function"),
        pytest.param(seen(sloped=500, along=0.87), False, id="not-told"),
    ],
)
def test_flags_a_term_of_the_product_rule_with_the_wrong_sign(trace: Trace, flagged: bool) -> None:
    found = findings_of(GradientCheckFailed(), trace)

    assert [each.severity for each in found] == [Severity.ERROR] * flagged
    assert all(
        each.message
        == "Clamp.backward has one of two terms with the wrong sign: forward is x h(x), backward "
        f"h(x) - x h'(x) or its opposite, at all of {each.evidence['entries']} entries"
        for each in found
    )


def test_the_message_counts_entries_of_the_wrong_sign() -> None:
    (found,) = findings_of(GradientCheckFailed(), mixed(60, 40))

    assert found.message == (
        "Clamp.backward has the wrong sign at 40 of 100 entries at which forward slopes, and the "
        "right one at the others"
    )
    assert found.evidence == {"opposite": 0.4, "limit": 0.1}


@pytest.mark.parametrize(
    ("slopes", "flagged"),
    [
        pytest.param({"x": RIGHT, "level": OPPOSED}, True, id="one-of-two"),
        pytest.param({"x": RIGHT, "w": LINE, "level": OPPOSED}, True, id="one-of-three"),
        pytest.param({"level": OPPOSED}, False, id="all-there-is"),
        pytest.param({"x": OPPOSED, "level": OPPOSED}, False, id="both"),
        pytest.param({"x": LINE, "level": OPPOSED}, False, id="beside-a-straight-line"),
        pytest.param({"x": slope(0.9), "level": OPPOSED}, False, id="beside-another-fault"),
        pytest.param({"x": slope(0.9), "w": RIGHT, "level": OPPOSED}, False, id="beside-both"),
        pytest.param(
            {"x": RIGHT, "y": slope(-1.0, curved=False, opposed=True)}, False, id="a-reversed-line"
        ),
        pytest.param({"x": RIGHT, "level": slope(-1.0)}, False, id="an-adversary"),
    ],
)
def test_warns_of_the_opposite_for_one_input(slopes: Any, flagged: bool) -> None:
    found = findings_of(GradientCheckFailed(), seen(slopes=slopes))

    assert [each.severity for each in found] == [Severity.WARNING] * flagged


def test_the_message_names_the_input_that_is_passed_the_opposite() -> None:
    trace = seen(slopes={"x": RIGHT, "level": OPPOSED})
    (found,) = findings_of(GradientCheckFailed(), trace)

    assert found.message == (
        "Clamp.backward returns the opposite of the slope for level, the slope for all others"
    )


@pytest.mark.parametrize(
    ("slopes", "flagged"),
    [
        pytest.param({"x": slope(0.4)}, True, id="off"),
        pytest.param({"x": slope(0.59)}, True, id="just-below"),
        pytest.param({"x": slope(0.6)}, False, id="at-the-limit"),
        pytest.param({"x": slope(-0.5)}, True, id="against"),
        pytest.param({"x": slope(-0.99)}, False, id="reversed"),
        pytest.param({"x": slope(0.4, curved=False)}, False, id="a-straight-line"),
        pytest.param({"x": RIGHT, "w": slope(0.4)}, True, id="one-of-two"),
    ],
)
def test_notes_a_backward_far_from_the_slope(slopes: Any, flagged: bool) -> None:
    found = findings_of(GradientCheckFailed(), seen(slopes=slopes))

    assert [each.severity for each in found] == [Severity.NOTE] * flagged


def test_the_note_is_of_the_input_that_is_farthest_off() -> None:
    trace = seen(slopes={"x": slope(0.4), "w": slope(0.123)})
    (found,) = findings_of(GradientCheckFailed(), trace)

    assert found.message == "Clamp.backward is not the slope of forward for w: their cosine is 0.12"


def test_a_note_is_no_proof_and_lets_be_what_is_meant() -> None:
    (note,) = findings_of(GradientCheckFailed(), seen(slopes={"x": slope(0.4)}))
    (error,) = findings_of(GradientCheckFailed(), mixed(60, 40))

    assert (note.exact, error.exact) == (False, True)
    assert "leave it where it is meant" in (note.help or "")
    assert error.help == GradientCheckFailed.help


def test_what_is_compared_entry_by_entry_is_no_note() -> None:
    assert not findings_of(GradientCheckFailed(), seen(sloped=300, slopes={"x": slope(0.4)}))


def test_the_gravest_of_a_function_speaks() -> None:
    slopes = {"x": RIGHT, "w": slope(0.4), "level": OPPOSED}
    trace = seen(sloped=300, against=300, flat=200, slopes=slopes, agreeing=60, opposite=40)
    (found,) = findings_of(GradientCheckFailed(), trace)

    assert found.severity is Severity.ERROR
    assert found.evidence["against"] == 1.0


def sent(
    pairs: int = 32, missed: int = 0, onward: int = 0, *, itself: bool = False, cosine: float = 0.0
) -> Trace:
    ways = {"pairs": pairs, "missed": missed, "onward": onward, "itself": itself}
    both = {"entries": {}, "slopes": {"h": slope(cosine, curved=False)}, "ways": {"h": ways}}
    return trace_of(operations=OPERATIONS, probes={"custom-derivatives": {"Clamp": both}})


@pytest.mark.parametrize(
    ("trace", "flagged"),
    [
        pytest.param(sent(32, 32, 32), True, id="sent-on"),
        pytest.param(sent(32, 17, 17), True, id="more-than-half"),
        pytest.param(sent(32, 16, 32), False, id="half-of-them-pass-it-back"),
        pytest.param(sent(32, 32, 16), False, id="half-of-them-pass-it-elsewhere"),
        pytest.param(sent(16, 16, 16), True, id="just-enough-pairs"),
        pytest.param(sent(15, 15, 15), False, id="few-pairs"),
        pytest.param(sent(itself=True, cosine=0.59), True, id="forward-itself"),
        pytest.param(sent(itself=True, cosine=0.6), False, id="nearly-symmetric"),
        pytest.param(sent(cosine=0.0), False, id="another-line"),
    ],
)
def test_flags_gradients_that_are_sent_on_and_not_back(trace: Trace, flagged: bool) -> None:
    found = findings_of(GradientCheckFailed(), trace)

    assert [(f.severity, f.exact) for f in found] == ([(Severity.ERROR, True)] if flagged else [])


def test_the_message_says_which_way_gradients_go() -> None:
    (on,) = findings_of(GradientCheckFailed(), sent(32, 32, 30))
    (itself,) = findings_of(GradientCheckFailed(), sent(itself=True, cosine=0.12))

    assert on.message == (
        "Clamp.backward sends gradients of h on, not back: 30 of 32 outputs pass one to entries "
        "that do not move them, and none to an entry that does"
    )
    assert itself.message == (
        "Clamp.backward applies forward itself to the gradient of h, not its transpose: their "
        "cosine is 0.12"
    )
