"""A watcher's life: runs of any length, exceptions, early reports, an end at the first fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.errors import GradientHealthError, NotObservedError
from gradlint.trace_file import read_trace
from gradlint.watching import Watcher
from gradlint.watching.light import _Stage
from gradlint.watching.loop import Loop
from tests.watch.ledger import BOTH, Ledger, at
from tests.watch.loops import mlp, plain, unfailed


def small() -> Any:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return plain(model, torch.randn(16, 6), torch.randint(0, 3, (16,)))


def hooked(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@BOTH
def test_one_step_is_judged(every: Any) -> None:
    training = small()

    with Watcher(training.model, training.optimizer, every=every) as watcher:
        loss = training.step()

    trace = watcher.trace()
    value = float(loss.detach())
    assert [(o.step, o.value) for o in trace.of("loss")] == [(0, value), (1, value)]
    assert len(at(trace, "gradient_norm", "0.weight")[1]) == 1
    assert watcher.report.verdict == "healthy"
    assert trace.facts.loop is not None
    assert trace.facts.loop.steps == trace.facts.loop.observed == 1


def test_no_step_is_not_observed() -> None:
    training = small()

    with pytest.raises(NotObservedError, match="no backward pass"), Watcher(training.model):
        training.model(torch.randn(2, 6))


@BOTH
def test_gradients_that_autograd_grad_gives_to_an_optimizer_are_judged(every: Any) -> None:
    training = small()
    parameters = list(training.model.parameters())

    with Watcher(training.model, training.optimizer, every=every) as watcher:
        for _ in range(12):
            loss = nn.functional.cross_entropy(
                training.model(torch.randn(16, 6)), torch.ones(16).long()
            )
            for parameter, gradient in zip(
                parameters, torch.autograd.grad(loss, parameters), strict=True
            ):
                parameter.grad = gradient
            training.optimizer.step()

    trace = watcher.trace()
    norms = at(trace, "gradient_norm", "0.weight")
    assert watcher.report.verdict != "not-observed"
    assert not [f for f in watcher.report.findings if f.severity.label == "error"]
    assert norms[max(norms)] == pytest.approx([float(parameters[0].grad.norm())])
    assert trace.of("update_to_weight_ratio").at("0.weight").training.last > 0


def test_an_exception_before_the_first_backward_is_the_one_that_is_seen() -> None:
    training = small()

    with pytest.raises(KeyError, match="mine"), Watcher(training.model, training.optimizer):
        raise KeyError("mine")

    assert hooked(training.model) == 0


def test_an_exception_of_backward_that_ends_the_loop_is_in_the_report() -> None:
    training = small()

    def fail(*_: Any) -> None:
        raise RuntimeError("in backward")

    with (
        training.model[0].weight.register_hook(fail),
        pytest.raises(RuntimeError, match="in backward"),
        Watcher(training.model, training.optimizer) as watcher,
    ):
        training.step()

    (event,) = watcher.trace("exception").events("exception")
    assert (event.detail["type"], event.detail["message"]) == ("RuntimeError", "in backward")
    assert watcher.report.error is not None
    assert watcher.report.error.message == "in backward"


@BOTH
def test_a_watcher_may_stop_and_start_again(every: Any) -> None:
    training = small()
    watcher = Watcher(training.model, training.optimizer, every=every)
    for _ in range(3):
        watcher.start()
        watcher.start()  # once is enough, twice does no harm
        training.step()
        training.step()
        watcher.stop()
        watcher.stop()
        assert hooked(training.model) == 0
        training.step()  # nobody looks

    unfailed(watcher)
    trace = watcher.trace()
    assert trace.facts.loop is not None
    assert trace.facts.loop.steps == trace.facts.loop.backwards == 6
    assert trace.of("loss").training.steps == (1, 2, 3, 4, 5, 6)
    assert sorted(at(trace, "gradient_norm", "0.weight")) == [1, 2, 3, 4, 5, 6]


@BOTH
def test_a_report_may_be_asked_for_at_any_time(every: Any) -> None:
    training = small()
    with Watcher(training.model, training.optimizer, every=every) as watcher:
        training.step()
        first = watcher.report
        for _ in range(5):
            training.step()
        second = watcher.report
        training.step()

    assert first.summary.steps == 1
    assert second.summary.steps == 6
    assert watcher.report.summary.steps == 7
    assert watcher.report is watcher.report
    unfailed(watcher)


def nan_input(training: Any, step: int) -> None:
    if step == 5:
        with torch.no_grad():
            training.model[0].weight[0, 0] = float("nan")
    training.step()


def detached(training: Any, step: int) -> None:
    training.optimizer.zero_grad()
    loss = training.model(torch.randn(4, 6)).detach().sum().requires_grad_()
    loss.backward()
    training.optimizer.step()


FAULTS: dict[str, tuple[Callable[[Any, int], None], str]] = {
    "NaN": (nan_input, "GL501"),
    "detached loss": (detached, "GL708"),
}


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
def test_the_loop_ends_at_the_first_certain_fault_with_the_report(fault: str, every: Any) -> None:
    training = small()
    step_of, code = FAULTS[fault]
    made = 0

    watcher = Watcher(training.model, training.optimizer, every=every, fail_on="error")
    with pytest.raises(GradientHealthError) as raised, watcher:  # noqa: PT012
        for step in range(1, 60):
            step_of(training, step)
            made = step

    assert made <= 6
    assert raised.value.report is watcher.report
    assert code in {f.code for f in watcher.report.findings}
    assert hooked(training.model) == 0
    training.step()
    assert watcher.loop.steps <= 6


def raising(training: Any, where: str) -> None:
    """Let one step fail inside, as a user catches it."""

    def fail(*_: Any) -> None:
        raise RuntimeError(where)

    register: Callable[..., Any] = {
        "forward": training.model[1].register_forward_hook,
        "backward": training.model[0].weight.register_hook,
        "step": training.optimizer.register_step_pre_hook,
    }[where]
    with register(fail), pytest.raises(RuntimeError, match=where):
        training.step()


@BOTH
@pytest.mark.parametrize("where", ["forward", "backward", "step"])
@pytest.mark.parametrize("when", [1, 2, 5, 6])
def test_the_loop_goes_on_after_an_exception_that_the_user_caught(
    where: str, when: int, every: Any
) -> None:
    training = small()
    model, ledger = training.model, Ledger(training.model)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    losses: list[float] = []
    with Watcher(model, training.optimizer, every=every) as watcher:
        for step in range(1, 10):
            if step == when:
                raising(training, where)
            training.optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            losses.append(float(loss.detach()))
            ledger.before()
            training.optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher, looked=8 if where == "step" else 9)
    assert [o.value for o in trace.of("loss").training] == losses
    assert trace.events("exception") == ()
    assert watcher.report.verdict == "healthy"
    seen = set(at(trace, "activation_grad_norm", "0"))
    # A forward that raised is told from the next one by nothing but its missing gradient.
    assert seen >= set(range(1, 10)) - {when}


def test_a_copy_of_a_light_steps_hook_does_nothing() -> None:
    import copy
    import pickle

    training = mlp()
    with Watcher(training.model, training.optimizer, every=1) as watcher:
        for _ in range(4):
            training.step()
        hooks = [h for m in training.model.modules() for h in m._forward_hooks.values()]
        assert any(isinstance(hook, _Stage) for hook in hooks)
        for other in (copy.deepcopy(training.model), pickle.loads(pickle.dumps(training.model))):
            other(torch.randn(4, 12)).sum().backward()
        training.step()

    unfailed(watcher)
    assert [len(v) for v in at(watcher.trace(), "activation_std", "0").values()] == [1] * 5


def test_a_run_that_a_fault_of_ours_left_unseen_is_not_called_healthy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Loop.step_made

    def breaks(self: Loop, *args: Any) -> None:
        if self.steps == 5:
            raise KeyError("ours")
        made(self, *args)

    monkeypatch.setattr(Loop, "step_made", breaks)
    training = small()

    file = tmp_path / "run.jsonl"
    with Watcher(training.model, training.optimizer, trace=file) as watcher:
        for _ in range(10):
            training.step()

    report = watcher.report
    assert (report.verdict, report.exit_code) == ("not-observed", 70)
    loop = read_trace(file).facts.loop
    assert loop is not None
    assert loop.fault == "KeyError: 'ours'"
    assert report.error is not None
    assert report.error.sentence == (
        "was not watched to its end: KeyError: 'ours' (a fault of gradlint itself)"
    )
