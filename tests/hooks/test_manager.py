"""Hooks come, tell, and go: whatever happens in between."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.errors import GradlintError, MetricError
from gradlint.hooks.inert import Inert
from gradlint.hooks.manager import HookManager, observable
from tests.observing import mlp


class Heard:
    """Writes down what the manager tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.told.append(("enter", path))

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.told.append(("leave", path))


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(getattr(module, name))
        for module in model.modules()
        for name in vars(module)
        if name.endswith("_hooks") and getattr(module, name)
    )


def test_modules_are_told_of_in_the_order_they_run() -> None:
    heard = Heard()
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh()))

    with HookManager(model, heard):
        model(torch.zeros(1, 2))

    assert heard.told == [
        ("enter", ""), ("enter", "0"), ("leave", "0"), ("enter", "1"), ("enter", "1.0"),
        ("leave", "1.0"), ("leave", "1"), ("leave", ""),
    ]  # fmt: skip


def test_hooks_are_gone_after_a_normal_end() -> None:
    model = mlp()

    with HookManager(model, Heard()):
        assert hooks_of(model) >= 2 * len(list(model.modules()))

    assert hooks_of(model) == 0


@pytest.mark.parametrize(
    "raised", [ValueError, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError]
)
def test_hooks_are_gone_after(raised: type[BaseException]) -> None:
    model = mlp()

    with pytest.raises(raised), HookManager(model, Heard()):
        raise raised

    assert hooks_of(model) == 0


def test_hooks_of_others_stay() -> None:
    model = mlp()
    seen: list[str] = []
    model[0].register_forward_hook(lambda *_: seen.append("theirs"))

    with HookManager(model, Heard()):
        pass
    model(torch.zeros(1, 6))

    assert seen == ["theirs"]
    assert hooks_of(model) == 1


def test_hooks_are_gone_if_placing_them_fails_half_way() -> None:
    model = mlp()

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no hooks here")

    model[4].register_forward_hook = refuse

    with pytest.raises(RuntimeError, match="no hooks here"), HookManager(model, Heard()):
        pass

    assert hooks_of(model) == 0


def test_managers_nest_and_may_be_left_in_any_order() -> None:
    model = mlp()
    first, second = Heard(), Heard()
    outer, inner = HookManager(model, first), HookManager(model, second)
    outer.__enter__()
    inner.__enter__()
    model(torch.zeros(1, 6))
    outer.__exit__()
    model(torch.zeros(1, 6))
    inner.__exit__()

    assert len(second.told) == 2 * len(first.told) > 0
    assert hooks_of(model) == 0


def test_inputs_are_told_with_their_keywords() -> None:
    given: list[Any] = []

    class Keywords(nn.Module):
        def forward(self, *, x: Tensor) -> Tensor:
            return x + 1

    class Listening(Heard):
        def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
            given.append(inputs)

    model = Keywords()
    with HookManager(model, Listening()):
        model(x=torch.ones(2))

    ((args, kwargs),) = given
    assert args == ()
    assert kwargs["x"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda model: pickle.loads(pickle.dumps(model)), id="pickle"),
        pytest.param(lambda model: saved_and_loaded(model), id="torch.save"),
    ],
)
def test_a_copy_of_a_watched_model_is_inert(copied: Any) -> None:
    heard = Heard()
    model = mlp()

    with HookManager(model, heard):
        twin = copied(model)
        twin(torch.zeros(1, 6))
        assert heard.told == []
        model(torch.zeros(1, 6))

    hooks = [hook for module in twin.modules() for hook in module._forward_hooks.values()]
    assert len(heard.told) == 2 * len(list(model.modules()))
    assert all(isinstance(hook, Inert) for hook in hooks)
    assert twin(torch.ones(1, 6)).equal(model(torch.ones(1, 6)))


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def test_the_state_dict_has_no_trace_of_us() -> None:
    model = mlp()
    before = list(model.state_dict())

    with HookManager(model, Heard()):
        assert list(model.state_dict()) == before


def test_a_forward_in_a_backward_is_not_told_of() -> None:
    seen: list[bool] = []
    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda gradient: seen.append(observable()))

    (x * 2).backward()

    assert observable()
    assert seen == [False]


def test_a_forward_under_a_transform_is_not_told_of() -> None:
    heard = Heard()
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())

    with HookManager(model, heard):
        torch.func.vmap(model)(torch.zeros(3, 2))
        torch.func.grad(lambda x: model(x).sum())(torch.zeros(2))
        torch.func.jacrev(model)(torch.zeros(2))

    assert heard.told == []


def test_a_mistake_of_ours_names_the_module_and_is_not_the_targets() -> None:
    class Broken(Heard):
        def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
            raise KeyError("mine")

    model = mlp()

    with pytest.raises(MetricError, match="could not read what '0' returned: KeyError"):  # noqa: SIM117
        with HookManager(model, Broken()):
            model(torch.zeros(1, 6))

    assert hooks_of(model) == 0


def test_an_error_of_the_target_comes_through_as_it_is() -> None:
    class Raising(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise LookupError("the user's own")

    with (
        pytest.raises(LookupError, match="the user's own") as error,
        HookManager(model := nn.Sequential(Raising()), Heard()),
    ):
        model(torch.zeros(1))

    assert not isinstance(error.value, GradlintError)
