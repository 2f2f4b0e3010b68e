"""GL206 input-ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gradlint.graph import Operation
from gradlint.rules.input_ignored import InputIgnored
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import TensorFacts, Trace

LAYERS = {"0": 0.8, "1": 0.7, "2": 0.0, "3": 0.0}


def probed(change: float, *, steps: int = 40, rate: float = 1e-3, **facts: Any) -> Trace:
    layers = facts.pop("layers", {**LAYERS, "3": change})
    probe = {"output_change": change, "layers": layers, "steps": steps}
    return trace_of(
        observe("learning_rate", "", [rate] * 5, kind="model"),
        probes={"input-ignored": probe},
        **facts,
    )


@pytest.mark.parametrize(
    ("change", "flagged"),
    [
        pytest.param(0.0, True, id="constant"),
        pytest.param(1e-6, True, id="exactly-at-the-limit"),
        pytest.param(1.1e-6, False, id="just-above"),
        pytest.param(0.3, False, id="healthy"),
        pytest.param(float("nan"), False, id="not-a-number"),
    ],
)
def test_flags_outputs_that_do_not_change(change: float, flagged: bool) -> None:
    assert bool(findings_of(InputIgnored(), probed(change), exemptions=())) is flagged


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        pytest.param(trace_of(), "the outputs of two batches were not compared", id="no-probe"),
        pytest.param(
            probed(0.0, steps=4), "judged after 5 training steps, 4 were made", id="too-early"
        ),
        pytest.param(probed(0.0, rate=1e-8), "the learning rate stayed below 1e-06", id="warm-up"),
    ],
)
def test_a_zero_initialized_head_is_given_time(trace: Trace, reason: str) -> None:
    assert InputIgnored().skip_reason(trace) == reason
    assert findings_of(InputIgnored(), trace, exemptions=()) == ()


def test_equal_batches_prove_nothing() -> None:
    still = {"0": 0.0, "1": 0.0}
    varied = (TensorFacts("input", (1, 8), "float32", std=1.0),)
    alone = probed(0.0, layers=still, batch_size=1, inputs=varied)
    equal = probed(0.0, layers=still, batch_size=8, inputs=(TensorFacts("x", (8, 8), "float32"),))
    several = probed(0.0, layers=still, batch_size=8, inputs=varied)

    assert not findings_of(InputIgnored(), alone, exemptions=())
    assert not findings_of(InputIgnored(), equal, exemptions=())
    assert findings_of(InputIgnored(), several, exemptions=())


def test_the_message_names_the_first_constant_module() -> None:
    (found,) = findings_of(InputIgnored(), probed(0.0), exemptions=())

    assert found.message == (
        "the output changes by 0.0e+00 of its size between two batches after 40 steps (limit "
        "1e-06): the input is ignored from 2 on"
    )
    assert found.module == "2"
    assert found.severity.label == "error"
    assert found.exact


@pytest.mark.parametrize(
    ("kind", "module", "expected"),
    [("linear", "2", True), ("embedding", "2", True), ("relu", "2", False), ("linear", "1", False)],
)
def test_it_says_whether_a_layer_was_given_the_constant(
    kind: str, module: str, expected: bool
) -> None:
    operation = Operation(0, kind, "", module)

    (found,) = findings_of(InputIgnored(), probed(0.0, operations=(operation,)), exemptions=())

    assert found.evidence["from"] == "2"
    assert found.evidence["constant_input"] is expected


def masked(change: float, *, output: float = 0.3) -> Trace:
    trace = probed(output)
    seen = {"change": change, "tokens": 240, "mask": "input[mask]", "of": "input[ids]"}
    probes = {**trace.facts.probes, "masked-tokens": seen}
    return trace.but(facts=replace(trace.facts, probes=probes))


@pytest.mark.parametrize(
    ("change", "flagged"),
    [(0.0, True), (1e-6, True), (1.1e-6, False), (0.3, False), (float("nan"), False)],
)
def test_tokens_that_change_nothing_beside_their_mask_are_flagged(
    change: float, flagged: bool
) -> None:
    found = findings_of(InputIgnored(), masked(change), exemptions=())

    assert bool(found) is flagged
    if flagged:
        assert found[0].message.startswith(
            "240 entries of input[ids] exchanged between samples, where their input[mask] agrees"
        )
        assert found[0].evidence["output_change"] == change
        assert "mask round" in found[0].help


def test_a_model_that_ignores_all_is_told_of_once() -> None:
    (found,) = findings_of(InputIgnored(), masked(0.0, output=0.0), exemptions=())

    assert "the input is ignored" in found.message


def padded(change: float, *, output: float = 0.3) -> Trace:
    trace = probed(output)
    seen = {"change": change, "tokens": 240, "of": "input", "padding": 0.0}
    probes = {**trace.facts.probes, "padded-tokens": seen}
    return trace.but(facts=replace(trace.facts, probes=probes))


@pytest.mark.parametrize(
    ("change", "flagged"),
    [(0.0, True), (1e-6, True), (1.1e-6, False), (0.3, False), (float("nan"), False)],
)
def test_tokens_that_change_nothing_beside_their_padding_are_flagged(
    change: float, flagged: bool
) -> None:
    found = findings_of(InputIgnored(), padded(change), exemptions=())

    assert bool(found) is flagged
    if flagged:
        assert found[0].message.startswith(
            "240 entries of input exchanged between samples, the padding (0) left alone, change"
        )
        assert found[0].evidence["output_change"] == change
        assert "mask round" in found[0].help


def test_a_model_that_ignores_padding_too_is_told_of_once() -> None:
    (found,) = findings_of(InputIgnored(), padded(0.0, output=0.0), exemptions=())

    assert "the input is ignored" in found.message
