"""Weights that a state dict held under another name, and that were not loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gradlint.finding import Severity
from gradlint.trace import Trace
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH

State = dict[str, Tensor]


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(x))
        return scores


def prefixed(state: State, prefix: str = "module.") -> State:
    return {prefix + name: value for name, value in state.items()}


def frozen(load: Callable[[nn.Module, State], object], every: object = "auto") -> Watcher:
    """Train a head on a frozen encoder, into which `load` loads what another one learned."""
    torch.manual_seed(0)
    learned = {
        n: v + 0.1 * torch.randn_like(v) for n, v in Classifier().encoder.state_dict().items()
    }
    with Watcher(None, None, every=every, discover=True) as watcher:
        model = Classifier()
        load(model.encoder, learned)
        model.encoder.requires_grad_(False)
        optimizer = torch.optim.Adam(model.head.parameters(), 1e-2)
        for _ in range(60):
            x = torch.randn(32, 6)
            optimizer.zero_grad()
            cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            optimizer.step()
    return watcher


def lost(trace: Trace) -> set[str]:
    return {path for path, facts in trace.parameters.items() if facts.unloaded}


@BOTH
def test_a_frozen_part_whose_state_was_not_loaded_is_an_error(
    every: object, tmp_path: Path
) -> None:
    watcher = frozen(lambda m, state: m.load_state_dict(prefixed(state), strict=False), every)

    (found,) = watcher.report.causes
    assert (found.code, found.severity) == ("GL712", Severity.ERROR)
    assert found.message.startswith("4 parameters are frozen in encoder as initialized")
    write_trace(tmp_path / "run.jsonl", watcher.trace())
    assert lost(read_trace(tmp_path / "run.jsonl")) == lost(watcher.trace()) != set()


def by_hand(module: nn.Module, state: State) -> None:
    module.load_state_dict(prefixed(state), strict=False)
    for name, value in module.state_dict().items():
        value.copy_(state[name])


def again(module: nn.Module, state: State) -> None:
    module.load_state_dict(prefixed(state), strict=False)
    module.load_state_dict(state)


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(lambda m, state: m.load_state_dict(state), id="loaded"),
        pytest.param(lambda m, state: m.load_state_dict({}, strict=False), id="held-by-nothing"),
        pytest.param(
            lambda m, state: m.load_state_dict({"other.bias": state["0.bias"]}, strict=False),
            id="under-no-name",
        ),
        pytest.param(again, id="loaded-again"),
        pytest.param(by_hand, id="written-by-hand"),
    ],
)
def test_what_was_loaded_or_never_held_is_not_lost(
    load: Callable[[nn.Module, State], object],
) -> None:
    assert lost(frozen(load).trace()) == set()


def test_a_name_with_a_part_missing_is_the_same_name() -> None:
    def load(module: nn.Module, state: State) -> None:
        whole = nn.ModuleDict({"encoder": module})
        whole.load_state_dict(state, strict=False)

    assert len(lost(frozen(load).trace())) == 4


def test_a_state_that_held_nothing_of_a_model_makes_it_no_trained_one() -> None:
    nothing = frozen(lambda m, state: m.load_state_dict(prefixed(state), strict=False))
    part = frozen(lambda m, state: m.load_state_dict({"0.bias": state["0.bias"]}, strict=False))

    assert not nothing.trace().facts.pretrained
    assert part.trace().facts.pretrained


def test_a_model_of_inference_tensors_ends_no_watching() -> None:
    def load(module: nn.Module, state: State) -> None:
        with torch.inference_mode():
            teacher = nn.Sequential(nn.Linear(6, 32))
        teacher.load_state_dict(prefixed(state), strict=False)
        module.load_state_dict(state)

    watcher = frozen(load)

    assert watcher.loop.failure is None
    assert lost(watcher.trace()) == set()
