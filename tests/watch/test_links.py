"""What parts that a loop calls one by one hand to each other, and what runs without gradient."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from gradlint.finding import Severity
from gradlint.trace import DetachedFacts, LoopFacts, QuietFacts
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

STEPS = 8

Model = nn.ModuleDict


def model() -> Model:
    torch.manual_seed(2)
    encoder = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 24))
    head = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2))
    return nn.ModuleDict({"encoder": encoder, "head": head})


def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(16, 6)
    return x, (x[:, 0] > 0).long()


def watched(loss: Callable[[Model], Tensor], every: object = 1) -> Watcher:
    net = model()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with Watcher(net, every=every) as watcher:  # type: ignore[arg-type]
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()
    unfailed(watcher)
    return watcher


def facts(watcher: Watcher) -> LoopFacts:
    found = watcher.trace().facts.loop
    assert found is not None
    return found


def severities(watcher: Watcher) -> list[Severity]:
    return [f.severity for f in watcher.report.findings if f.code == "GL701"]


def detached(net: Model) -> Tensor:
    x, y = batch()
    return cross_entropy(net["head"](net["encoder"](x).detach()), y)


def quiet(net: Model) -> Tensor:
    x, y = batch()
    with torch.no_grad():
        features = net["encoder"](x[:, None]).mean(1)
    return cross_entropy(net["head"](features), y)


@BOTH
def test_a_detached_output_that_another_part_reads_is_known(every: object, tmp_path: Path) -> None:
    watcher = watched(detached, every)

    assert facts(watcher).detached == (DetachedFacts("encoder", "head"),)
    assert severities(watcher) == [Severity.ERROR]
    write_trace(tmp_path / "run.jsonl", watcher.trace())
    assert read_trace(tmp_path / "run.jsonl").facts.loop == facts(watcher)


@BOTH
def test_a_part_that_runs_under_no_grad_is_known(every: object, tmp_path: Path) -> None:
    watcher = watched(quiet, every)
    (seen,) = facts(watcher).quiet

    assert seen.steps >= 3
    assert seen == QuietFacts("encoder", seen.steps, (16, 1, 6), ((16, 1, 24),))
    assert severities(watcher) == [Severity.WARNING]
    write_trace(tmp_path / "run.jsonl", watcher.trace())
    assert read_trace(tmp_path / "run.jsonl").facts.loop == facts(watcher)


def attached(net: Model) -> Tensor:
    x, y = batch()
    return cross_entropy(net["head"](net["encoder"](x)), y)


def copied(net: Model) -> Tensor:
    x, y = batch()
    return cross_entropy(net["head"](net["encoder"](x).detach().clone()), y)


def measured(net: Model) -> Tensor:
    loss = attached(net)
    with torch.no_grad():
        net["encoder"](batch()[0])
    return loss


def validated(net: Model) -> Tensor:
    net.eval()
    with torch.no_grad():
        net["encoder"](batch()[0])
    net.train()
    return attached(net)


@pytest.mark.parametrize("loss", [attached, copied, measured, validated])
def test_nothing_is_said_of_what_is_read_with_its_gradient(
    loss: Callable[[Model], Tensor],
) -> None:
    seen = facts(watched(loss))

    assert (seen.detached, seen.quiet) == ((), ())


def test_random_targets_stand_beside_what_learns_them() -> None:
    def distilled(net: Model) -> Tensor:
        x, _ = batch()
        with torch.no_grad():
            target = net["encoder"](x)
        return mse_loss(net["predictor"](x), target)

    net = model()
    net["predictor"] = nn.Linear(6, 24)
    del net["head"]
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with Watcher(net, every=1) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            distilled(net).backward()
            optimizer.step()

    assert severities(watcher) == [Severity.NOTE]


def test_the_output_of_a_forward_without_a_backward_is_kept_no_longer_than_the_step() -> None:
    net, seen = model(), []
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with Watcher(net) as watcher:
        for _ in range(6):  # some of them looked at in full, and the next one not
            optimizer.zero_grad()
            x, y = batch()
            cross_entropy(net["head"](net["encoder"](x)), y).backward()
            seen.append(weakref.ref(net["encoder"](x)))  # looked at, with its graph, and dropped
            optimizer.step()
            gc.collect()

            assert seen[-1]() is None
    unfailed(watcher)


def lent(net: Model) -> Tensor:
    x, y = batch()
    with torch.no_grad():
        features = net["encoder"](x)
    return cross_entropy(net["head"](features.view(16, 24)), y)


def lent_for_a_while(net: Model) -> Tensor:
    """What takes the memory of an output that is gone is not that output."""
    x, y = batch()
    with torch.no_grad():
        net["encoder"](x)
    return cross_entropy(net["head"](torch.randn(16, 24) + x[:, :1]), y)


def evaluated(net: Model) -> Tensor:
    x, y = batch()
    net["encoder"].eval()
    with torch.no_grad():
        features = net["encoder"](x)
    net["encoder"].train()
    return cross_entropy(net["head"](features), y)


@pytest.mark.parametrize(
    ("loss", "links"),
    [(lent, (DetachedFacts("encoder", "head"),)), (lent_for_a_while, ()), (evaluated, ())],
)
def test_the_very_output_of_a_part_that_runs_under_no_grad_is_known(
    loss: Callable[[Model], Tensor], links: tuple[DetachedFacts, ...]
) -> None:
    watcher = watched(loss)

    assert facts(watcher).detached == links
    assert (Severity.ERROR in severities(watcher)) is bool(links)


@BOTH
def test_a_model_that_no_call_with_gradient_shows_is_found_by_its_optimizer(every: object) -> None:
    torch.manual_seed(0)
    with Watcher(None, None, every=every, discover=True) as watcher:  # type: ignore[arg-type]
        encoder, head = nn.Linear(6, 64), nn.Linear(64, 2)
        parameters = [*encoder.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam(parameters, 1e-3)
        for _ in range(STEPS):
            x, y = batch()
            with torch.no_grad():
                features = encoder(x)
            optimizer.zero_grad()
            cross_entropy(head(features), y).backward()
            optimizer.step()
    unfailed(watcher)

    (found,) = watcher.report.causes
    assert (found.code, found.severity, found.module) == ("GL701", Severity.ERROR, "linear")
    assert watcher.trace().of("weight_std").at("linear.weight").steps == (0,)


def test_a_model_that_only_helps_is_not_found() -> None:
    torch.manual_seed(0)
    with Watcher(None, None, discover=True) as watcher:
        teacher, student, spare = nn.Linear(6, 2), nn.Linear(6, 2), nn.Linear(6, 2)
        optimizer = torch.optim.Adam([*student.parameters(), *spare.parameters()], 1e-3)
        for _ in range(STEPS):
            x, _ = batch()
            with torch.no_grad():
                targets = teacher(x)
            optimizer.zero_grad()
            mse_loss(student(x), targets).backward()
            optimizer.step()
    unfailed(watcher)

    assert set(watcher.trace().parameters) == {"weight", "bias"}
