"""Watching changes no bit, adds no synchronization and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_globals
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optimizer_globals
from torch.utils._python_dispatch import TorchDispatchMode

from gradlint.watching import Watcher
from tests.watch.loops import FAMILIES, Make, Training, mlp, unfailed, watched

STEPS = 12
LONG = 70
"""Steps of two families: beyond the first 40 some are looked at less closely, some not at all."""


def steps_of(family: str) -> int:
    return LONG if family in ("mlp", "accumulation") else STEPS


def state(model: nn.Module) -> list[Tensor]:
    return [t.clone() for t in model.state_dict().values()]


@pytest.mark.parametrize("every", ["auto", 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_the_same_bit_for_bit(family: str, every: Any) -> None:
    bare = FAMILIES[family]()
    torch.manual_seed(7)
    losses = [bare.step().detach().clone() for _ in range(steps_of(family))]
    random_state = torch.get_rng_state()
    seen = FAMILIES[family]()
    torch.manual_seed(7)

    _, seen_losses = watched(seen, steps_of(family), every=every)

    assert all(torch.equal(a, b) for a, b in zip(losses, seen_losses, strict=True))
    pairs = zip(state(bare.model), state(seen.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(random_state, torch.get_rng_state())


class Reads(TorchDispatchMode):
    """Counts values read back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("every", ["auto", 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_value_is_read_back_that_the_bare_run_does_not_read(family: str, every: Any) -> None:
    bare, seen = FAMILIES[family](), FAMILIES[family]()
    with Reads() as expected:
        for _ in range(steps_of(family)):
            bare.step()
    reads = Reads()

    watched(seen, steps_of(family), around=reads, every=every)

    assert reads.count == expected.count


def hooks(model: nn.Module) -> Iterator[tuple[str, int]]:
    names = [n for n in vars(nn.Module()) if n.endswith("hooks") or "hooks_with" in n]
    for path, module in model.named_modules():
        for name in names:
            yield f"{path}.{name}", len(getattr(module, name))
    for path, parameter in model.named_parameters():
        yield path, len(parameter._backward_hooks or ())
        yield f"{path}+", len(getattr(parameter, "_post_accumulate_grad_hooks", None) or ())


def process() -> list[Any]:
    """What a watcher replaces or adds to in torch."""
    named = [
        torch.autograd.backward, clip_grad._clip_grads_with_norm_, nn.utils.clip_grad_value_,
        nn.utils.clip_grad_value_.__closure__[0].cell_contents, nn.utils.clip_grad_norm_,
        torch.amp.GradScaler.step, torch.amp.GradScaler.scale,
        torch.amp.GradScaler.update, nn.Module.load_state_dict, torch.optim.Optimizer.__init__,
        torch.autograd.graph.saved_tensors_hooks.__enter__,
    ]  # fmt: skip
    counts = [
        len(module_globals._global_forward_pre_hooks), len(module_globals._global_forward_hooks),
        len(optimizer_globals._global_optimizer_pre_hooks),
        len(optimizer_globals._global_optimizer_post_hooks),
    ]  # fmt: skip
    return [*named, *counts]


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("discover", [False, True])
def test_nothing_is_left_behind(make: Make, discover: bool) -> None:
    training = make()
    before, torch_before = dict(hooks(training.model)), process()

    watcher = Watcher(discover=True) if discover else Watcher(training.model)
    with watcher:
        for _ in range(3):
            training.step()
    unfailed(watcher)

    assert dict(hooks(training.model)) == before
    assert process() == torch_before


@pytest.mark.parametrize("at", ["forward", "backward", "step", "outside"])
def test_nothing_is_left_behind_by_an_exception(at: str) -> None:
    training = mlp()
    before, torch_before = dict(hooks(training.model)), process()

    def fail(*args: Any) -> None:
        raise RuntimeError(at)

    def loop() -> None:
        places = {
            "forward": training.model[2].register_forward_hook,
            "backward": training.model[0].weight.register_hook,
            "step": training.optimizer.register_step_pre_hook,
        }
        with Watcher(training.model, training.optimizer):
            training.step()
            if at in places:
                with places[at](fail):
                    training.step()
            fail()

    with pytest.raises(RuntimeError, match=at):
        loop()

    assert dict(hooks(training.model)) == before
    assert process() == torch_before


def test_nested_watchers_may_end_in_any_order() -> None:
    one, two = mlp(), mlp()
    torch_before = process()
    first, second = Watcher(one.model, one.optimizer), Watcher(two.model, two.optimizer)

    first.start()
    second.start()
    for _ in range(3):
        one.step()
        two.step()
    first.stop()
    one.step()
    two.step()
    second.stop()

    unfailed(first)
    unfailed(second)
    assert (first.loop.steps, second.loop.steps) == (3, 4)
    assert process() == torch_before


def test_a_watched_model_can_be_copied_and_saved_and_the_copy_is_not_watched() -> None:
    training = mlp()
    watcher = Watcher(training.model, training.optimizer, every=1)
    with watcher:
        for _ in range(5):
            training.step()
            twin = copy.deepcopy(training.model)
            again = pickle.loads(pickle.dumps(training.model))
            for other in (twin, again):
                other(torch.randn(4, 12)).sum().backward()
        keys = list(training.model.state_dict())

    unfailed(watcher)
    assert watcher.loop.steps == 5
    assert keys == list(mlp().model.state_dict())
    assert not any("Enter" in str(h) for h in twin[0]._forward_pre_hooks.values())


def test_a_watcher_keeps_no_model_alive() -> None:
    training = mlp()
    watcher = Watcher(training.model, training.optimizer, every=1)
    watcher.start()
    for _ in range(5):
        training.step()
    model = weakref.ref(training.model)
    del training
    gc.collect()

    assert model() is None
    watcher.stop()
    assert watcher.report.verdict == "healthy"


def without_dropout() -> Training:
    training = mlp()
    training.model.eval()
    return training


def test_a_mistake_of_ours_ends_the_watching_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, bare = without_dropout(), without_dropout()
    torch_before = process()

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradlint.watching.gradients.Gradients.measure", broken)
    with Watcher(training.model, training.optimizer) as watcher:
        losses = [training.step().detach() for _ in range(4)]

    assert losses == [bare.step().detach() for _ in range(4)]
    assert isinstance(watcher.loop.failure, ZeroDivisionError)
    assert process() == torch_before


def test_a_mistake_of_ours_at_the_start_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, torch_before = mlp(), process()

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradlint.watching.loop.FullLook", broken)
    watcher = Watcher(training.model, training.optimizer)
    watcher.start()
    training.step()
    watcher.stop()

    assert isinstance(watcher.loop.failure, ZeroDivisionError)
    assert process() == torch_before
