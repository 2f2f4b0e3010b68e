from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradlint
from gradlint.finding import Severity
from gradlint.rules.eval_mode_training import EvalModeTraining
from gradlint.testing import findings_of, trace_of
from gradlint.trace import ModuleFacts, ParameterFacts, Trace

NORM = ModuleFacts("body.bn", "BatchNorm2d", 1, 1, training=False, parameters=("body.bn.weight",))
LSTM = ModuleFacts("body.rnn", "LSTM", 3, 1, training=False, options={"dropout": 0.3})
USERS = ModuleFacts("body", "Net", 0, 1, training=False, options={"reads_mode": True})
DROP = ModuleFacts("body.drop", "Dropout", 2, 1, training=False, options={"p": 0.3})
WEIGHTS = (
    ParameterFacts("body.bn.weight", (4,), module="body.bn"),
    ParameterFacts("body.fc.weight", (4, 4), module="body.fc"),
)


def trace(
    *modules: ModuleFacts,
    parameters: tuple[ParameterFacts, ...] = WEIGHTS,
    pretrained: bool = False,
) -> Trace:
    return trace_of(modules=modules, parameters=parameters, pretrained=pretrained)


@pytest.mark.parametrize("module", [NORM, DROP, LSTM, USERS], ids=lambda m: m.kind)
def test_a_module_in_evaluation_mode_is_flagged(module: ModuleFacts) -> None:
    (found,) = findings_of(EvalModeTraining(), trace(module))

    assert found.severity is Severity.WARNING
    assert found.module == module.path
    assert found.message == f"{module.kind} runs in evaluation mode while the model is trained"


FROZEN = tuple(replace(p, requires_grad=False) for p in WEIGHTS)
JUDGE = tuple(replace(p, in_optimizer=False) for p in WEIGHTS)
TEACHER = tuple(replace(p, gradient="missing") for p in WEIGHTS)


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param(trace(replace(NORM, training=True)), id="training-mode"),
        pytest.param(trace(NORM, DROP, parameters=JUDGE), id="in-no-optimizer"),
        pytest.param(trace(replace(NORM, calls=0)), id="not-called"),
        pytest.param(trace(replace(DROP, options={"p": 0.0})), id="dropout-of-nothing"),
        pytest.param(trace(replace(LSTM, options={"dropout": 0.0})), id="recurrent-without"),
        pytest.param(trace(replace(USERS, options={})), id="a-class-without-modes"),
        pytest.param(
            trace(replace(USERS, options={"reads_mode": True, "dropout": 0.0})),
            id="a-class-that-drops-nothing",
        ),
        pytest.param(trace(replace(NORM, kind="LayerNorm")), id="the-same-in-both-modes"),
        pytest.param(trace(NORM, pretrained=True), id="fine-tuning"),
        pytest.param(trace(NORM, DROP, parameters=FROZEN), id="frozen"),
        pytest.param(trace(NORM, DROP, parameters=TEACHER), id="teacher"),
        pytest.param(trace(), id="nothing"),
    ],
)
def test_what_is_meant_is_silent(silent: Trace) -> None:
    assert not findings_of(EvalModeTraining(), silent)


def test_evaluating_first_and_training_then_is_silent() -> None:
    """An adversarial example is made in evaluation mode."""
    x, y = torch.randn(16, 8), torch.randint(0, 3, (16,))

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        model.eval()
        with torch.no_grad():
            model(batch[0])
        model.train()
        return functional.cross_entropy(model(batch[0]), batch[1])

    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    report = gradlint.check(model, (x, y), training_step=step, steps=2)

    assert "GL710" not in {f.code for f in report.findings}


def test_a_frozen_normalization_among_layers_that_learn_is_silent() -> None:
    own, beside = WEIGHTS

    assert not findings_of(
        EvalModeTraining(), trace(NORM, parameters=(replace(own, requires_grad=False), beside))
    )
