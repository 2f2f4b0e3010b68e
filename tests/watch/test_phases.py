"""A script of several phases, or a step of several losses: each loss is judged, not the first."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy, mse_loss, nll_loss

from gradlint.report import Report
from gradlint.trace import Trace
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

PHASE = 60
"""Steps of a phase: the later ones are not looked at in full."""


class Pretrained(nn.Module):
    """An autoencoder whose encoder a classifier goes on with."""

    def __init__(self, *, softmax: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.decoder = nn.Linear(16, 8)
        self.head: nn.Module = nn.Linear(16, 3)
        if softmax:
            self.head = nn.Sequential(nn.Linear(16, 3), nn.Softmax(1))

    def forward(self, x: Tensor, *, classify: bool = False) -> Tensor:
        return self.head(self.encoder(x)) if classify else self.decoder(self.encoder(x))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 8)
    return x, (x @ torch.randn(8, 3)).argmax(1)


def reconstruct(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    for _ in range(PHASE):
        optimizer.zero_grad()
        mse_loss(model(x), x).backward()
        optimizer.step()


def classify(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    for _ in range(PHASE):
        optimizer.zero_grad()
        cross_entropy(model(x, classify=True), y).backward()
        optimizer.step()


def two_phases(*, softmax: bool, early: bool, every: Any) -> tuple[Trace, Report]:
    """Pretrain and classify; with `early` both optimizers are there from the start."""
    torch.manual_seed(6)
    model = Pretrained(softmax=softmax)
    x, y = data()
    first = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], 1e-2)
    second = torch.optim.Adam(model.parameters(), 1e-2) if early else None
    with Watcher(model, every=every) as watcher:
        reconstruct(model, first, x)
        classify(model, second or torch.optim.Adam(model.parameters(), 1e-2), x, y)
    unfailed(watcher)
    return watcher.trace(), watcher.report


@BOTH
@pytest.mark.parametrize("early", [True, False])
def test_the_loss_of_a_second_phase_is_known(early: bool, every: Any) -> None:
    trace, report = two_phases(softmax=False, early=early, every=every)
    seen = {facts.kind: facts for facts in trace.facts.losses}
    assert set(seen) == {"mse", "cross_entropy"}
    assert seen["cross_entropy"].classes == 3
    assert seen["mse"].step == 0 < PHASE < seen["cross_entropy"].step <= PHASE + 2
    assert not report.causes


@BOTH
@pytest.mark.parametrize("early", [True, False])
def test_a_softmax_before_the_cross_entropy_of_a_second_phase_is_named(
    early: bool, every: Any
) -> None:
    _, report = two_phases(softmax=True, early=early, every=every)
    assert [f.code for f in report.causes][:1] == ["GL601"]


@BOTH
@pytest.mark.parametrize("discover", [True, False])
def test_a_second_model_of_a_script_is_judged_by_its_own_loss(discover: bool, every: Any) -> None:
    torch.manual_seed(7)
    x, y = data()
    one, two = nn.Linear(8, 3), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    models = None if discover else {"one": one, "two": two}
    with Watcher(models, discover=discover, every=every) as watcher:
        optimizer = torch.optim.Adam(one.parameters(), 1e-2)
        for _ in range(PHASE):
            optimizer.zero_grad()
            cross_entropy(one(x), y).backward()
            optimizer.step()
        optimizer = torch.optim.Adam(two.parameters(), 1e-2)
        for _ in range(PHASE):
            optimizer.zero_grad()
            nll_loss(two(x), y).backward()  # of logits
            optimizer.step()
    unfailed(watcher)
    assert "GL602" in {f.code for f in watcher.report.causes}


@BOTH
def test_a_second_fit_with_labels_that_do_not_fit_is_named(every: Any) -> None:
    torch.manual_seed(8)
    x, _ = data()
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def fit(y: Tensor) -> None:
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(PHASE):
            optimizer.zero_grad()
            bce(net(x), y).backward()
            optimizer.step()

    with Watcher(net, every=every) as watcher:
        fit((x[:, :1] > 0).float())
        fit((x[:, :1] > 0).float() * 2)
    unfailed(watcher)
    assert "GL605" in {f.code for f in watcher.report.causes}


@BOTH
def test_every_backward_of_a_step_has_its_loss_read(every: Any) -> None:
    torch.manual_seed(9)
    x, y = data()
    trunk, few, raw = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(16, 1)
    model = nn.ModuleDict({"trunk": trunk, "few": few, "raw": raw})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(12):
            optimizer.zero_grad()
            cross_entropy(few(trunk(x).relu()), y).backward()
            mse_loss(raw(trunk(x).relu()), x[:, :1] * 1000).backward()
            optimizer.step()
    unfailed(watcher)
    assert [seen.kind for seen in watcher.trace().facts.losses] == ["cross_entropy", "mse"]
    found = {f.code: f for f in watcher.report.findings}
    assert "GL615" in found


@BOTH
def test_micro_batches_are_one_loss(every: Any) -> None:
    torch.manual_seed(10)
    x, y = data()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(12):
            optimizer.zero_grad()
            for some, labels in zip(x.split(16), y.split(16), strict=True):
                (cross_entropy(model(some), labels) / 4).backward()
            optimizer.step()
    assert len(watcher.trace().facts.losses) == 1
    assert not watcher.report.findings


def test_an_optimizer_for_every_step_costs_a_few_looks_only() -> None:
    torch.manual_seed(11)
    x, y = data()
    model = nn.Linear(8, 3)
    with Watcher(model) as watcher:
        for _ in range(100):
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    unfailed(watcher)
    full = {flow.step for flow in watcher.trace().facts.flows}
    assert len(full) <= 20


def fits(models: list[nn.Module], losses: list[float], every: Any, *, keep: bool) -> Trace:
    """Train one model after the other, each with an optimizer of its own."""
    x, y = data()
    optimizers = [torch.optim.Adam(model.parameters(), 1e-2) for model in models if keep]
    with Watcher({f"m{i}": m for i, m in enumerate(models)}, every=every) as watcher:
        for i, model in enumerate(models):
            own = optimizers[i] if keep else torch.optim.Adam(model.parameters(), 1e-2)
            for _ in range(PHASE):
                own.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                losses.append(float(loss.detach()))
                own.step()
            del own  # the next one may be where it was
    unfailed(watcher)
    assert not watcher.report.causes
    return watcher.trace()


@BOTH
@pytest.mark.parametrize("keep", [True, False])
def test_of_models_trained_one_after_the_other_the_first_ones_loss_is_the_loss(
    keep: bool, every: Any
) -> None:
    torch.manual_seed(12)
    models = [nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)) for _ in range(3)]
    losses: list[float] = []
    trace = fits([*models], losses, every, keep=keep)
    assert trace.facts.loop is not None
    assert trace.facts.loop.streams == 3
    assert trace.of("loss").training.values == pytest.approx(losses[:PHASE])
    for i in range(3):
        seen = trace.of("stream_loss").at(f"m{i}").values
        assert seen == pytest.approx(losses[i * PHASE : (i + 1) * PHASE])


@BOTH
@pytest.mark.parametrize("early", [True, False])
def test_phases_with_other_losses_are_no_one_series(early: bool, every: Any) -> None:
    trace, _ = two_phases(softmax=False, early=early, every=every)
    assert trace.facts.loop is not None
    assert trace.facts.loop.streams == 2
    steps = trace.of("loss").training.steps
    assert (min(steps), max(steps)) == (1, PHASE)
    later = {o.site.path for o in trace.of("stream_loss").training if o.step > PHASE}
    first = {o.site.path for o in trace.of("stream_loss").training if o.step <= PHASE}
    assert len(first) == len(later) == 1
    assert first != later


@BOTH
@pytest.mark.parametrize("keep", [True, False])
def test_another_fit_of_the_same_model_goes_on_with_its_loss(keep: bool, every: Any) -> None:
    torch.manual_seed(13)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = data()
    losses: list[float] = []
    kept: list[torch.optim.Optimizer] = []
    with Watcher(model, every=every) as watcher:
        for rate in (1e-2, 1e-3):
            optimizer = torch.optim.Adam(model.parameters(), rate)
            kept += [optimizer] * keep
            for _ in range(PHASE):
                optimizer.zero_grad()
                loss = cross_entropy(model(x), y)
                loss.backward()
                losses.append(float(loss.detach()))
                optimizer.step()
            del optimizer
    unfailed(watcher)
    trace = watcher.trace()
    assert trace.facts.loop is not None
    assert trace.facts.loop.streams == 1
    assert trace.of("loss").training.values == pytest.approx(losses)


@BOTH
@pytest.mark.parametrize("early", [True, False])
def test_an_output_that_cannot_reach_the_targets_of_a_second_phase_is_named(
    early: bool, every: Any, tmp_path: Path
) -> None:
    torch.manual_seed(14)
    x, y = data()
    trunk, head = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 3)
    last = nn.Sequential(nn.Linear(16, 1), nn.Sigmoid())
    model = nn.ModuleDict({"trunk": trunk, "head": head, "last": last})
    first = torch.optim.Adam(model.parameters(), 1e-2)
    second = torch.optim.Adam(model.parameters(), 1e-2) if early else None
    with Watcher(model, every=every) as watcher:
        for _ in range(PHASE):
            first.zero_grad()
            cross_entropy(head(trunk(x)), y).backward()
            first.step()
        second = second or torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(PHASE):
            second.zero_grad()
            mse_loss(last(trunk(x)), x[:, :1]).backward()
            second.step()
    unfailed(watcher)
    named = {f.code: f for f in watcher.report.causes}
    assert named["GL603"].module == "last.1"
    write_trace(tmp_path / "run.jsonl", watcher.trace())
    again = read_trace(tmp_path / "run.jsonl")
    assert again.facts.losses == watcher.trace().facts.losses


@BOTH
def test_the_first_few_steps_of_many_copies_are_not_the_loss(every: Any) -> None:
    """Reptile adapts a copy of the model, with an optimizer of its own, to task after task."""
    torch.manual_seed(14)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with Watcher({}, discover=True, every=every) as watcher:
        for _ in range(12):
            adapted = copy.deepcopy(model)
            optimizer = torch.optim.SGD(adapted.parameters(), lr=0.05)
            for _ in range(8):
                optimizer.zero_grad()
                x = torch.randn(16, 8)
                nn.functional.cross_entropy(adapted(x), x[:, :3].argmax(1)).backward()
                optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(model.parameters(), adapted.parameters(), strict=True):
                    slow.lerp_(fast, 0.1)
    unfailed(watcher)
    trace = watcher.trace()

    assert trace.facts.loop is not None
    if trace.facts.loop.streams > 1:
        assert trace.of("loss").training.values == ()
    assert not [f for f in watcher.report.findings if f.severity.label != "note"]
