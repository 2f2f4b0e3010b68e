from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.clipping_missing import ClippingMissing
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ClippingFacts, LoopFacts, ModuleFacts, Trace

TWICE = [1.0] * 15 + [20.0] + [1.0] * 14 + [70.0] + [1.0] * 29
BY_NORM = ClippingFacts("norm", 5.0)


def trace(
    norms: list[float] = TWICE,
    kind: str = "LSTM",
    *,
    clipping: ClippingFacts | None = None,
    streams: int = 1,
    scale_unknown: bool = False,
    watched: bool = True,
) -> Trace:
    loop = LoopFacts(
        steps=len(norms), clipping=clipping, streams=streams, scale_unknown=scale_unknown
    )
    return trace_of(
        observe("total_gradient_norm", "", norms, kind="model"),
        modules=[ModuleFacts("", "Net", 2, 1), ModuleFacts("cell", kind, 1, 1)],
        loop=loop if watched else None,
    )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_spikes_of_a_recurrent_network_are_noted(kind) -> None:
    (found,) = findings_of(ClippingMissing(), trace(kind=kind))

    assert (found.severity, found.module) == (Severity.NOTE, "cell")


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(trace(kind="Conv2d"), id="no-recurrence"),
        pytest.param(trace(clipping=BY_NORM), id="clipped"),
        pytest.param(trace(clipping=ClippingFacts("by-hand", steps=9)), id="clipped-by-hand"),
        pytest.param(trace([1.0] * 20 + [50.0] + [1.0] * 39), id="a-single-outlier"),
        pytest.param(trace([1.0] * 60), id="no-spike"),
        pytest.param(trace([1.0] * 20 + [9.0] + [1.0] * 10 + [9.0] + [1.0] * 9), id="small-ones"),
        pytest.param(trace([50.0, 30.0, 10.0] + [1.0] * 57), id="the-first-steps"),
        pytest.param(trace([1.1**i for i in range(60)]), id="growth"),
        pytest.param(trace(streams=2), id="several-losses"),
        pytest.param(trace(scale_unknown=True), id="gradients-of-unknown-scale"),
        pytest.param(trace(watched=False), id="check"),
        pytest.param(trace([]), id="not-observed"),
        pytest.param(trace_of(), id="nothing"),
    ],
)
def test_healthy_loops_are_silent(observed) -> None:
    assert findings_of(ClippingMissing(), observed) == ()


def test_it_says_why_it_is_skipped() -> None:
    assert ClippingMissing().skip_reason(trace(watched=False)) == "no training loop was watched"
    assert ClippingMissing().skip_reason(trace([])) == "not observed: total_gradient_norm"
    assert ClippingMissing().skip_reason(trace()) is None


def test_the_message_counts_the_spikes_and_the_help_names_a_limit() -> None:
    (found,) = findings_of(ClippingMissing(), trace())

    assert found.message == (
        "the gradient's norm spiked at 2 of 60 observed steps, to 70 where 1 is usual, and "
        "nothing clips it"
    )
    assert found.help == "Call clip_grad_norm_(model.parameters(), 1) before optimizer.step()."
