"""Modules and parameters that hide from `parameters()`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradlint.probes.wiring import unregistered
from gradlint.trace import Event
from tests.observing import FAMILIES


class Holder(nn.Module):
    """Keeps whatever it is given as an attribute."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        for name, value in held.items():
            setattr(self, name, value)


def events(model: nn.Module) -> list[Event]:
    return list(unregistered(model))


def layers() -> list[nn.Module]:
    return [nn.Linear(3, 3), nn.Linear(3, 3)]


@pytest.mark.parametrize(
    ("held", "container", "parameters"),
    [
        (layers(), "list", 24), (tuple(layers()), "tuple", 24),
        (dict(zip("ab", layers(), strict=True)), "dict", 24), (set(layers()), "set", 24),
        ([layers(), layers()], "list", 48), ({"a": layers()}, "dict", 24),
        ([nn.Parameter(torch.ones(5))], "list", 5),
        ([torch.ones(5, requires_grad=True)], "list", 5),
    ],
)  # fmt: skip
def test_what_a_plain_container_hides_is_an_event(
    held: Any, container: str, parameters: int
) -> None:
    (event,) = events(nn.Sequential(Holder(hidden=held)))

    assert event.name == "unregistered-module"
    assert event.module == "0"
    assert event.detail["attribute"] == "hidden"
    assert event.detail["container"] == container
    assert event.detail["parameters"] == parameters
    assert event.detail["kind"] in ("Linear", "Parameter", "Tensor")
    assert event.detail["training"] is True
    assert event.detail["ours"] is True


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(nn.ModuleList(layers()), id="module-list"),
        pytest.param(nn.ModuleDict({"a": nn.Linear(3, 3)}), id="module-dict"),
        pytest.param(nn.ParameterList([torch.ones(3)]), id="parameter-list"),
        pytest.param([nn.ReLU(), nn.Dropout()], id="without-parameters"),
        pytest.param([nn.Linear(3, 3).requires_grad_(False)], id="frozen-teacher"),
        pytest.param([1, "text", None], id="no-modules"),
        pytest.param([torch.ones(3)], id="constants"),
        pytest.param([nn.Linear], id="classes"),
        pytest.param([], id="empty"),
    ],
)
def test_what_hides_nothing_that_trains_is_none(held: Any) -> None:
    assert events(Holder(held=held)) == []


def test_what_was_computed_from_a_parameter_hides_it() -> None:
    (event,) = events(nn.Sequential(Holder(scale=nn.Parameter(torch.ones(5)).t() * 0.1)))

    assert event.module == "0"
    assert event.detail["attribute"] == "scale"
    assert event.detail["container"] == "tensor"
    assert event.detail["parameters"] == 5


def test_results_of_known_parameters_of_inputs_and_of_long_computations_hide_nothing() -> None:
    model = Holder(known=nn.Linear(3, 3), plain=torch.ones(3), points=torch.ones(3) * 2)
    model.kept = model.known(torch.ones(2, 3)) * nn.Parameter(torch.ones(3))
    model.given = torch.ones(3, requires_grad=True)
    model.made = model.given * 2
    long = nn.Parameter(torch.ones(3))
    for _ in range(20):
        long = long * 2
    model.long = long

    assert events(model) == []


def test_a_list_of_registered_modules_hides_nothing() -> None:
    model = Holder(a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    model.order = [model.a, model.b]
    model.weights = [model.a.weight, model.b.weight]

    assert events(model) == []


def test_a_list_of_modules_registered_elsewhere_in_the_model_hides_nothing() -> None:
    inner = nn.Linear(3, 3)

    assert events(nn.Sequential(inner, Holder(views=[inner]))) == []


def test_only_the_lost_part_of_a_container_is_counted() -> None:
    model = Holder(known=nn.Linear(3, 3))
    model.all = [model.known, nn.Linear(3, 3)]

    (event,) = events(model)

    assert event.detail["parameters"] == 12
    assert event.detail["modules"] == 1


def test_a_hidden_evaluation_model_is_told_apart() -> None:
    (event,) = events(Holder(frozen=[nn.Linear(3, 3).eval()]))

    assert event.detail["training"] is False


@pytest.mark.parametrize("family", FAMILIES)
def test_respected_models_hide_nothing(family: str) -> None:
    assert events(FAMILIES[family][0]()) == []
