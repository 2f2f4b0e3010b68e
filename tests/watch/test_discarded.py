"""Gradients that are cleared before the step that should use them, and those that were of use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from gradlint.trace import DiscardedFacts, LoopFacts
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

STEPS = 12


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def batch() -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 8)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loss_of(model: nn.Module) -> Tensor:
    x, y = batch()
    return cross_entropy(model(x), y)


Loop = Callable[[nn.Module, torch.optim.Optimizer], None]


def watched(loop: Loop, every: Any = 1, kind: Any = torch.optim.SGD, steps: int = STEPS) -> Any:
    """Run `loop` for each of `steps` steps; return what its facts say of discarded passes."""
    model = network()
    optimizer = kind(model.parameters(), lr=0.05)
    with Watcher(model, every=every) as watcher:
        for _ in range(steps):
            loop(model, optimizer)
    unfailed(watcher)
    return found(watcher)


def found(watcher: Watcher) -> DiscardedFacts | None:
    facts = watcher.trace().facts.loop
    assert isinstance(facts, LoopFacts)
    return facts.discarded


def micro_batches(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
    optimizer.step()


def clipped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        loss_of(model).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


def losses_one_by_one(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = batch()
    out = model(x)
    for loss in (cross_entropy(out, y), out.square().mean(), out.abs().mean()):
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
    optimizer.step()


@BOTH
@pytest.mark.parametrize("loop", [micro_batches, clipped, losses_one_by_one])
def test_passes_that_are_cleared_before_the_step_are_counted(loop: Loop, every: Any) -> None:
    assert watched(loop, every) == DiscardedFacts(observed=STEPS, steps=STEPS, each=2)


def test_many_passes_a_step_are_counted() -> None:
    def epoch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(20):
            optimizer.zero_grad()
            loss_of(model).backward()
        optimizer.step()

    assert watched(epoch, steps=2) == DiscardedFacts(observed=2, steps=2, each=19)


def attacked(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x, y = batch()
    x.requires_grad_()
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        assert x.grad is not None
        x.data += 0.01 * x.grad.sign()
        x.grad = None
    optimizer.step()


def sharpness_aware(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    moved: list[Tensor] = []
    for second in (False, True):
        optimizer.zero_grad()
        loss_of(model).backward()
        for index, p in enumerate(model.parameters()):
            assert p.grad is not None
            if second:
                p.data.sub_(moved[index])
            else:
                moved.append(0.05 * p.grad)
                p.data.add_(moved[index])
    optimizer.step()


def line_search(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    before = copy.deepcopy(model.state_dict())
    for rate in (1.0, 0.3, 0.1):
        optimizer.zero_grad()
        loss_of(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= rate * p.grad  # type: ignore[operator]
    model.load_state_dict(before)
    optimizer.step()


def put_back(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Each pass begins from weights that are written anew, though they are the same."""
    state = copy.deepcopy(model.state_dict())
    for _ in range(3):
        model.load_state_dict(state)
        optimizer.zero_grad()
        loss_of(model).backward()
    optimizer.step()


def gathered(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[Tensor]]:
    gradients = []
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    return [[a, b, c] for a, b, c in zip(*gradients, strict=True)]


def merged_in_place(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p, (a, b, c) in zip(model.parameters(), gathered(model, optimizer), strict=True):
        p.grad.data.copy_(a + b + c)  # type: ignore[union-attr]
    optimizer.step()


def merged_anew(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p, (a, b, c) in zip(model.parameters(), gathered(model, optimizer), strict=True):
        p.grad = a + b + c
    optimizer.step()


def compared(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    gathered(model, optimizer)
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def accumulated(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    for _ in range(3):
        loss_of(model).backward()
    optimizer.step()


def attacked_within_sharpness(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Cleared once, then two passes add up: not all but the last are thrown away."""
    for clears in (True, True, False):
        if clears:
            optimizer.zero_grad()
        loss_of(model).backward()
    optimizer.step()


def hessian(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward(create_graph=True)
    optimizer.step()


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize(
    "loop",
    [
        attacked, sharpness_aware, line_search, put_back, merged_in_place, merged_anew, compared,
        accumulated, attacked_within_sharpness, hessian,
    ],
)  # fmt: skip
def test_passes_whose_gradients_are_of_use_are_not(loop: Loop) -> None:
    assert watched(loop) is None


class Collects(torch.optim.SGD):
    """Gathers gradients in its own state, as optimizers of private training do."""

    def step(self, closure: Any = None) -> None:
        super().step()


def test_an_optimizer_of_ones_own_may_have_kept_them() -> None:
    assert watched(micro_batches, kind=Collects) is None


def test_a_hook_of_the_step_may_write_gradients() -> None:
    def kind(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=lr)
        optimizer.register_step_pre_hook(lambda *_: None)
        return optimizer

    assert watched(micro_batches, kind=kind) is None


@pytest.mark.parametrize("whole", [False, True])
def test_the_passes_of_the_other_side_of_a_gan_are_not_thrown_away(whole: bool) -> None:
    generator, judge = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    first = torch.optim.SGD(generator.parameters(), lr=0.05)
    second = torch.optim.SGD(judge.parameters(), lr=0.05)
    models = {"generator": generator, "judge": judge} if whole else {"judge": judge}
    with Watcher(models, every=1) as watcher:
        for _ in range(STEPS):
            for optimizer in (first, second):
                fake = judge(generator(torch.randn(32, 4)))
                if optimizer is second:
                    fake = softplus(-judge(batch()[0])) + softplus(fake)
                first.zero_grad()
                second.zero_grad()
                fake.mean().backward()
                optimizer.step()
    unfailed(watcher)

    assert found(watcher) is None


def test_a_pass_that_raised_is_no_pass() -> None:
    def again(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for attempt in range(3):
            optimizer.zero_grad()
            out = model(batch()[0])
            if attempt < 2:
                out.register_hook(_raise)
            try:
                out.square().mean().backward()
            except MemoryError:
                continue
        optimizer.step()

    assert watched(again) is None


def _raise(gradient: Tensor) -> None:
    raise MemoryError


def test_warming_up_is_one_step_s() -> None:
    passes = iter([5])

    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(next(passes, 1)):
            optimizer.zero_grad()
            loss_of(model).backward()
        optimizer.step()

    assert watched(loop) == DiscardedFacts(observed=STEPS, steps=1, each=4)


def test_a_loop_whose_first_steps_had_nothing_to_count_is_not_followed_further() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Watcher(model, every=1) as watcher:
        for number in range(60):
            if number < 50:
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
            else:
                micro_batches(model, optimizer)

    facts = watcher.trace().facts.loop
    assert facts is not None
    assert facts.discarded is None
    assert len(watcher.loop.discarded._counts) == 40
