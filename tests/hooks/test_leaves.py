"""Leaves of the graph that learn and are no parameters of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlint.engine import Observer
from gradlint.trace import Event, Facts


class Holding(nn.Module):
    """A layer, and a tensor that is used as its scale."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 3), held

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


def events(
    model: nn.Module, after: Callable[[nn.Module], Any] = lambda m: None, forwards: int = 3
) -> list[Event]:
    """Run a few forwards and backwards; `after` acts on the model before the end."""
    observer = Observer(model)
    with observer:
        for step in range(forwards):
            with observer.step(step):
                loss = model(torch.randn(8, 4)).square().mean()
                observer.forward_done(loss, gains=False)
                observer.backward(loss)
                del loss
    after(model)
    return list(observer.trace(Facts()).facts.events)


def test_a_plain_tensor_that_wants_a_gradient_is_told() -> None:
    (event,) = events(nn.Sequential(Holding(torch.ones(3, requires_grad=True))))

    assert (event.name, event.module) == ("plain-tensor", "0")
    assert event.detail == {"attribute": "scale", "parameters": 3}


def moves(model: Any) -> None:
    with torch.no_grad():
        model.scale.mul_(2)


def moves_its_data(model: Any) -> None:
    model.scale.data.mul_(2)


def goes(model: Any) -> None:
    model.scale = torch.ones(3, requires_grad=True)


def is_optimized(model: Any) -> None:
    model.own = torch.optim.SGD([model.scale], lr=0.1)


@pytest.mark.parametrize(
    ("held", "after"),
    [
        (torch.ones(3), None),
        (torch.zeros(3, requires_grad=True), None),
        (nn.Parameter(torch.ones(3)), None),
        (torch.ones(3, requires_grad=True), moves),
        (torch.ones(3, requires_grad=True), moves_its_data),
        (torch.ones(3, requires_grad=True), goes),
        (torch.ones(3, requires_grad=True), is_optimized),
    ],
    ids=["constant", "zeros", "parameter", "moved", "moved-by-data", "replaced", "own-optimizer"],
)
def test_tensors_that_are_meant_or_move_are_not(held: Any, after: Any) -> None:
    assert events(Holding(held), after or (lambda m: None)) == []


def test_the_graph_says_which_attribute_a_leaf_is() -> None:
    observer = Observer(Holding(torch.ones(3, requires_grad=True)))
    with observer, observer.step(0):
        observer.forward_done(observer.model(torch.randn(8, 4)).sum())
        (leaf,) = observer.graph.of_kind("input")

    assert leaf.attributes == {"attribute": "scale"}


def anew(h: Tensor) -> Tensor:
    return nn.Linear(3, 3)(h)


def constant(h: Tensor) -> Tensor:
    layer = nn.Linear(3, 3)
    nn.init.eye_(layer.weight)
    return layer(h)


def only_a_vector(h: Tensor) -> Tensor:
    return h * nn.Parameter(torch.randn(3))


_kept: list[nn.Module] = []


def kept(h: Tensor) -> Tensor:
    _kept.append(nn.Linear(3, 3))
    return _kept[-1](h)


_one = nn.Linear(3, 3)


class Making(nn.Module):
    """A layer, and what `made` makes behind it."""

    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.made, self.calls = nn.Linear(4, 3), made, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.made(self.fc(x))


def test_layers_made_at_every_call_are_told() -> None:
    (event,) = events(Making(anew))

    assert (event.name, event.detail) == ("made-anew", {"shapes": [[3, 3]], "forwards": 3})


@pytest.mark.parametrize(
    "made",
    [constant, only_a_vector, kept, _one, copy.copy, F.relu],
    ids=["constant", "vector", "kept", "one-layer-for-all", "nothing", "function"],
)
def test_what_is_the_same_at_every_call_or_kept_is_not(made: Any) -> None:
    assert events(Making(made)) == []


def test_two_forwards_prove_nothing() -> None:
    assert events(Making(anew), forwards=2) == []


def test_a_forward_without_them_begins_anew() -> None:
    class Sometimes(Making):
        def forward(self, x: Tensor) -> Tensor:
            made = super().forward(x)
            return made if self.calls != 2 else self.fc(x)

    assert events(Sometimes(anew), forwards=3) == []
    assert events(Sometimes(anew), forwards=5)
