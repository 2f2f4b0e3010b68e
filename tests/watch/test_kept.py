"""Weights that somebody puts back between steps, and those that only look like it."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradlint
from gradlint.engine import Observer
from gradlint.report import Report
from gradlint.watching import Watcher
from gradlint.watching.kept import Kept

STEPS = 40


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )


def watched(between: Callable[[nn.Module, int], None], lr: float = 1e-2) -> Watcher:
    """Train, with something done to the model after each step."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr)
    inputs = torch.randn(STEPS, 32, 12)
    with gradlint.watch(model, optimizer) as watcher:
        for number in range(STEPS):
            optimizer.zero_grad()
            x = inputs[number]
            F.cross_entropy(model(x), x[:, :4].argmax(1)).backward()
            optimizer.step()
            between(model, number)
    return watcher


def shares(report: Report) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for finding in report.findings:
        if finding.code == "GL406":
            found.setdefault(finding.severity.label, []).append(finding.evidence["share"])
    return found


def state_loaded() -> Callable[[nn.Module, int], None]:
    kept: list[dict[str, torch.Tensor]] = []

    def load(model: nn.Module, number: int) -> None:
        if not kept:
            kept.append(copy.deepcopy(model.state_dict()))
        model.load_state_dict(kept[0])

    return load


def average(decay: float, *, put_in: bool, restored: bool = False) -> Callable[..., None]:
    held: list[list[torch.Tensor]] = []

    def update(model: nn.Module, number: int) -> None:
        now = [p.detach().clone() for p in model.parameters()]
        if not held:
            held.append(now)
        for slow, fast in zip(held[0], now, strict=True):
            slow.mul_(decay).add_(fast, alpha=1 - decay)
        if put_in:
            _write(model, held[0])
        if restored:
            _write(model, now)

    return update


def _write(model: nn.Module, values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def first_layer_restored() -> Callable[[nn.Module, int], None]:
    kept: list[torch.Tensor] = []

    def restore(model: nn.Module, number: int) -> None:
        weight = model[0].weight  # type: ignore[index]
        if not kept:
            kept.append(weight.detach().clone())
        with torch.no_grad():
            weight.copy_(kept[0])

    return restore


def clamped(model: nn.Module, number: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.01, 0.01)


def unit_rows(model: nn.Module, number: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(F.normalize(parameter, dim=1))


def pruned(model: nn.Module, number: int) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(parameter.abs() > parameter.abs().quantile(0.95))


def reset_at_times(model: nn.Module, number: int) -> None:
    if number % 10 == 9:
        torch.manual_seed(1)
        model.apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None)


def lookahead() -> Callable[[nn.Module, int], None]:
    held: list[list[torch.Tensor]] = []

    def update(model: nn.Module, number: int) -> None:
        now = [p.detach().clone() for p in model.parameters()]
        if not held:
            held.append(now)
        if number % 5 == 4:
            for slow, fast in zip(held[0], now, strict=True):
                slow.lerp_(fast, 0.5)
            _write(model, held[0])

    return update


@pytest.mark.parametrize(
    ("between", "severity", "most"),
    [
        pytest.param(state_loaded, "error", 0.0, id="a-state-loaded-after-every-step"),
        pytest.param(lambda: average(0.999, put_in=True), "error", 2e-3, id="an-average-put-in"),
        pytest.param(lambda: average(0.99, put_in=True), "error", 2e-2, id="a-faster-average"),
        pytest.param(first_layer_restored, "warning", 0.0, id="one-layer-of-three"),
    ],
)
def test_weights_put_back_between_steps_are_named(between, severity, most) -> None:
    report = watched(between()).report
    found = shares(report)

    assert report.findings[0].code == "GL406"
    assert list(found) == [severity]
    assert all(share <= most for share in found[severity])


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda: lambda model, number: None, id="nothing-done"),
        pytest.param(lambda: average(0.999, put_in=False), id="an-average-beside-the-model"),
        pytest.param(
            lambda: average(0.999, put_in=True, restored=True), id="put-in-and-taken-out-again"
        ),
        pytest.param(lambda: clamped, id="a-critic-s-clamp"),
        pytest.param(lambda: unit_rows, id="rows-of-length-one"),
        pytest.param(lambda: pruned, id="a-mask-of-pruning"),
        pytest.param(lambda: reset_at_times, id="folds-from-one-start"),
        pytest.param(lookahead, id="lookahead"),
    ],
)
def test_what_only_looks_like_it_is_not(between) -> None:
    watcher = watched(between())
    kept = watcher.trace().of("kept_update_share").training.values

    assert shares(watcher.report) == {}
    assert kept
    assert all(share > 0.1 for share in kept if not math.isnan(share))


def test_no_parameter_is_kept_alive_between_steps() -> None:
    kept, weight = Kept(), nn.Parameter(torch.randn(4, 4))
    gone = weakref.ref(weight)
    kept.begins(1, {"weight": weight}, {id(weight)}, Observer())
    kept.ended(1)

    del weight
    gc.collect()

    assert gone() is None
