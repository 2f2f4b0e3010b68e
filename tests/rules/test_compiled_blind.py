from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.compiled_blind import CompiledBlind
from gradlint.testing import findings_of, trace_of
from gradlint.trace import LoopFacts, ModuleFacts


@pytest.mark.parametrize(
    "loop",
    [
        pytest.param(None, id="check"),
        pytest.param(LoopFacts(steps=20), id="not-compiled"),
    ],
)
def test_what_can_be_looked_into_is_silent(loop) -> None:
    assert findings_of(CompiledBlind(), trace_of(loop=loop)) == ()


def test_what_was_compiled_before_is_a_warning() -> None:
    loop = LoopFacts(steps=20, compiled=("body",), blind=("body",))

    (found,) = findings_of(
        CompiledBlind(), trace_of(modules=[ModuleFacts("body", "Net")], loop=loop)
    )

    assert found.severity is Severity.WARNING
    assert found.module == "body"
    assert found.message == (
        "body was compiled before watching began: its activations are not seen, its gradients and "
        "updates are"
    )


def test_what_runs_compiled_is_a_note() -> None:
    (found,) = findings_of(CompiledBlind(), trace_of(loop=LoopFacts(compiled=("model",))))

    assert found.severity is Severity.NOTE
    assert found.module == ""
    assert found.message == (
        "the model runs compiled: its activations are not seen, its gradients and updates are"
    )


def test_several_are_one_finding() -> None:
    modules = [ModuleFacts("netG", "G", 0), ModuleFacts("netD", "D", 1)]
    loop = LoopFacts(blind=("netG", "netD"))

    (found,) = findings_of(CompiledBlind(), trace_of(modules=modules, loop=loop))

    assert found.modules == ("netG", "netD")
