"""A loss that raises ends the loop: what it was given is the report's first finding."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.errors import NotObservedError
from gradlint.hooks.loss import from_error
from gradlint.report import Report
from gradlint.watching import Watcher
from gradlint.watching.raised import raised_in_loss

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def ended(model: nn.Module, batches: list[Batch], loss_fn: Loss) -> tuple[Watcher, Exception]:
    """Train under a watcher until the loss raises; return the watcher and what came out."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watcher = Watcher(model)
    with pytest.raises(Exception) as caught, watcher:  # noqa: PT012
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss_fn(model(inputs), targets).backward()
            optimizer.step()
    assert watcher.loop.failure is None
    return watcher, caught.value


def judged(
    batches: list[Batch], loss_fn: Loss = functional.cross_entropy, outputs: int = 4
) -> Report:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))
    return ended(model, batches, loss_fn)[0].report


def batch(labels: int = 4, first: int = 0, size: int = 32) -> Batch:
    return torch.randn(size, 6), torch.arange(size) % labels + first


@pytest.mark.parametrize(
    ("bad", "outputs", "code"),
    [
        pytest.param(batch(first=1), 4, "GL605", id="labels-from-one"),
        pytest.param(batch(labels=10), 8, "GL604", id="more-labels-than-outputs"),
        pytest.param((torch.randn(32, 6), batch()[1][:20]), 4, "GL605", id="fewer-labels"),
        pytest.param((torch.randn(32, 6), batch()[1].float()), 4, "GL605", id="float-labels"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 30])
def test_targets_that_a_loss_refuses_are_the_first_finding(
    bad: Batch, outputs: int, code: str, before: int
) -> None:
    report = judged([*[batch()] * before, bad], outputs=outputs)

    assert report.findings[0].code == code
    assert report.findings[0].severity.label == "error"
    assert report.error is not None


def test_shapes_that_a_regression_refuses_are_the_first_finding() -> None:
    sound = torch.randn(32, 6), torch.randn(32, 4)
    bad = torch.randn(32, 6), torch.randn(32, 3)

    report = judged([sound, bad], functional.l1_loss)

    assert [f.code for f in report.findings if f.severity.label == "error"] == ["GL605"]
    assert "(32, 3)" in report.findings[0].message


def test_inputs_of_the_only_batch_are_judged_beside_its_targets() -> None:
    inputs, targets = batch(first=1)

    report = judged([(inputs * 900, targets)])

    assert [f.code for f in report.findings if f.cause is None][:2] == ["GL605", "GL606"]


class OwnLoss(nn.Sequential):
    """Computes its loss itself, as models of transformers do."""

    def forward(self, inputs: Any) -> Any:  # type: ignore[override]
        return functional.cross_entropy(super().forward(inputs[0]), inputs[1])


def test_a_loss_inside_the_model_is_one_too() -> None:
    model = OwnLoss(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(IndexError), Watcher(model) as watcher:
        model(batch(first=1))

    assert [f.code for f in watcher.report.findings][:1] == ["GL605"]


def test_another_exception_after_sound_steps_says_nothing_of_the_targets() -> None:
    report = judged([batch(), (torch.randn(32, 7), batch()[1])])

    assert not {f.code for f in report.findings} & {"GL604", "GL605"}


def test_another_exception_before_the_first_backward_leaves_nothing_to_report() -> None:
    bad = torch.randn(32, 7), batch()[1]
    watcher, _ = ended(nn.Linear(6, 4), [bad], functional.cross_entropy)

    with pytest.raises(NotObservedError):
        _ = watcher.report


def test_an_exception_that_the_loop_survived_is_not_its_end() -> None:
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Watcher(model, optimizer) as watcher:
        for step in range(5):
            inputs, targets = batch(first=int(step == 3))
            optimizer.zero_grad()
            try:
                loss = functional.cross_entropy(model(inputs), targets)
            except IndexError:
                continue
            loss.backward()
            optimizer.step()

    assert watcher.report.error is None
    assert watcher.trace().events("exception") == ()
    assert "GL605" not in {f.code for f in watcher.report.findings}


def test_the_exception_leaves_as_it_was_raised() -> None:
    model = nn.Linear(6, 4)
    inputs, targets = batch(first=1)
    with pytest.raises(IndexError) as caught:
        functional.cross_entropy(model(inputs), targets)

    _, watched = ended(model, [(inputs, targets)], functional.cross_entropy)

    assert type(watched) is caught.type
    assert watched.args == caught.value.args
    assert watched.__cause__ is watched.__context__ is None
    assert lines(watched) == lines(caught.value)


def lines(error: BaseException) -> list[str]:
    found, entry = [], error.__traceback__
    while entry is not None:
        found.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    return found[1:]


def test_nothing_of_the_batch_is_kept_alive() -> None:
    inputs, targets = batch(first=1)
    kept = [weakref.ref(tensor) for tensor in (inputs, targets)]

    watcher, error = ended(nn.Linear(6, 4), [(inputs, targets)], functional.cross_entropy)
    _ = watcher.report
    del inputs, targets, error
    gc.collect()

    assert [tensor() for tensor in kept] == [None, None]


def test_of_a_tensor_on_an_accelerator_no_entry_is_read() -> None:
    outputs = torch.randn(8, 4, device="meta")  # stands for a device that does not answer
    with pytest.raises(Exception) as caught:
        functional.mse_loss(outputs, torch.randn(8, 3))

    found = from_error(caught.value)

    assert found is not None
    assert found.output is not None
    assert found.target is not None
    assert (found.output.shape, found.target.shape) == ((8, 4), (8, 3))
    assert found.target.unique == 0


def test_a_script_that_tells_of_the_exception_itself_ended_of_it() -> None:
    def script() -> None:
        try:
            functional.cross_entropy(torch.randn(4, 3), torch.full((4,), 3))
        except IndexError:
            raise SystemExit(1)  # noqa: B904

    with pytest.raises(SystemExit) as caught:
        script()

    found = raised_in_loss(caught.value)

    assert found is not None
    assert isinstance(found[0], IndexError)
    assert raised_in_loss(SystemExit(1)) is raised_in_loss(KeyboardInterrupt()) is None


@pytest.mark.parametrize("ours", [True, False], ids=["met-by-us", "met-by-the-loop"])
def test_an_assertion_on_the_device_is_no_fault_of_ours(
    ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accelerator tells of it later, to whoever reads next."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watcher = Watcher(model, optimizer)
    with pytest.raises(RuntimeError, match="device-side"), watcher:  # noqa: PT012
        for step in range(3):
            optimizer.zero_grad()
            inputs, targets = batch()
            loss = functional.cross_entropy(model(inputs), targets)
            if step == 2 and ours:
                monkeypatch.setattr(watcher.loop.data, "note", fail)
            loss.backward()
            optimizer.step()
        fail()

    (notice,) = watcher.report.notices
    assert "a label or a probability out of range" in notice
