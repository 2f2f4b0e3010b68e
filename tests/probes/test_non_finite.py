"""Where a number first stops being finite, on programs whose place is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.engine import Observer
from gradlint.probes.non_finite import in_backward, in_forward, in_tensors, origin
from gradlint.trace import Event
from tests.observing import mlp

STATE = torch.get_rng_state()


class Between(nn.Module):
    """Three layers, and a function behind the second."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.function(self.second(self.first(x))))


def located(
    model: nn.Module, loss: Callable[[nn.Module], Tensor] | None = None, **batch: Any
) -> Event:
    """Run one step as training does, and ask where it went wrong."""
    run = loss or (lambda m: m(torch.ones(3, 4)).square().mean())
    state = torch.get_rng_state()
    with Observer(model) as observer, observer.step(1):
        value = run(model)
        observer.forward_done(value)
        observer.backward(value)
        observer.gradients()
        seen = observer.read()
        return origin(observer, run, batch, state, 1, seen["loss", ""])


@pytest.mark.parametrize(
    ("function", "operation", "value", "fed_by"),
    [
        (lambda x: (x - x).log(), "log", "inf", "log of a number ≤ 0"),
        (lambda x: (x - x - 1).log(), "log", "nan", "log of a number ≤ 0"),
        (lambda x: (x - x - 1).sqrt(), "sqrt", "nan", "√ of a negative number"),
        (lambda x: 1 / (x - x), "reciprocal", "inf", "division by zero"),
        (lambda x: x / (x - x), "div", "inf", "division by zero"),
        (lambda x: (x - x + 200).exp(), "exp", "inf", "exp of a large number"),
        (lambda x: (x - x) ** -1.5, "pow", "inf", "a power out of range"),
        (lambda x: x * 1e30 * 1e30, "mul", "inf", None),
    ],
)  # fmt: skip
def test_the_operation_that_made_it_is_found_in_its_module(
    function: Callable[[Tensor], Tensor], operation: str, value: str, fed_by: str | None
) -> None:
    event = located(Between(function))

    assert event.name == "non-finite"
    assert event.module == ""
    assert event.detail["phase"] == "forward"
    assert event.detail["operation"] == operation
    assert event.detail["value"] == value
    if fed_by is not None:
        assert event.detail["fed_by"] == fed_by


def test_an_overflow_in_a_middle_layer_is_found_there_and_with_what_fed_it() -> None:
    model = Between(torch.relu)
    nn.init.constant_(model.first.weight, 1e20)
    nn.init.constant_(model.second.weight, 1e20)

    event = located(model)

    assert (event.module, event.detail["phase"]) == ("second", "forward")
    assert event.detail["operation"] == "addmm"
    assert event.detail["value"] == "inf"
    assert event.detail["fed_by"] == "values up to 4.0e+20"
    assert event.step == 1


def test_an_operation_outside_the_model_is_the_losss() -> None:
    event = located(mlp(), lambda m: m(torch.ones(3, 6)).relu().sum(1).mul(0).log().mean())

    assert event.module is None
    assert event.detail["phase"] == "loss"
    assert event.detail["operation"] == "log"


class Attention(nn.Module):
    """Attention by hand under a mask, and then a `function`."""

    def __init__(self, mask: Tensor, function: Callable[[Tensor], Tensor], write: str) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 2)
        self.mask, self.function, self.write = mask, function, write

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        logits = q @ k.transpose(-2, -1)
        if self.write == "fill":
            logits = logits.masked_fill(self.mask, -math.inf)
        else:
            logits = logits + torch.zeros(3, 3).masked_fill(self.mask, -math.inf)
        return self.out(self.function(logits.softmax(-1) @ v))


FUTURE = torch.ones(3, 3).triu(1).bool()


@pytest.mark.parametrize("write", ["fill", "add"])
def test_a_mask_of_minus_infinity_is_not_blamed(write: str) -> None:
    model = Attention(FUTURE, lambda x: (x - x).log(), write)

    event = located(model, lambda m: m(torch.randn(2, 3, 4)).mean())

    assert event.detail["operation"] == "log"


@pytest.mark.parametrize("write", ["fill", "add"])
def test_a_row_that_is_masked_everywhere_is(write: str) -> None:
    model = Attention(torch.ones(3, 3).bool(), lambda x: x, write)

    event = located(model, lambda m: m(torch.randn(2, 3, 4)).mean())

    assert event.detail["operation"] == "softmax"
    assert event.detail["fed_by"] == "a row that is masked everywhere"
    assert event.detail["value"] == "nan"


@pytest.mark.parametrize(
    ("function", "operation", "fed_by"),
    [
        (lambda x: (x - x).sqrt(), "sqrt", "the derivative of √ at 0"),
        (lambda x: (x - x).abs() ** 0.5, "pow", "the derivative of a power at 0"),
        (lambda x: torch.where(x > 9, (x - x).sqrt(), x), "sqrt", "the derivative of √ at 0"),
        (lambda x: (x - x + 1).acos(), "acos", "the derivative of arccos at ±1"),
    ],
)  # fmt: skip
def test_what_arises_in_the_backward_alone_is_found_there(
    function: Callable[[Tensor], Tensor], operation: str, fed_by: str
) -> None:
    event = located(Between(function))

    assert event.detail["phase"] == "backward"
    assert event.detail["operation"] == operation
    assert event.detail["fed_by"] == fed_by
    assert event.module == ""


def test_the_backward_is_run_again_where_it_was_not_measured() -> None:
    model = Between(lambda x: F.dropout((x - x).sqrt() + x))
    before = {name: p.clone() for name, p in model.named_parameters()}

    def run(m: nn.Module) -> Tensor:
        return m(torch.ones(3, 4)).square().mean()

    state = torch.get_rng_state()
    with Observer(model) as observer, observer.step(7):
        loss = run(model)
        observer.forward_done(loss, gains=False)
        observer.backward(loss)
        observer.gradients()
        observer.read()
        random = torch.get_rng_state()
        event = origin(observer, run, {}, state, 7, float(loss.detach()))

    assert event.step == 7
    assert event.detail["operation"] == "sqrt"
    assert torch.get_rng_state().equal(random)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


def test_a_gradient_that_overflows_in_the_parameter_alone_is_found() -> None:
    class Outer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            return x * w

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
            return gradient, torch.full((4,), math.inf)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.w = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return Outer.apply(self.stem(x), self.w)

    event = located(Model())

    assert event.detail == {
        "phase": "backward", "operation": "custom", "value": "inf", "fed_by": "the gradient of w",
    }  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_batch_is_blamed_first(bad: float) -> None:
    inputs = torch.ones(3, 4)
    inputs[1, 2] = bad

    event = located(
        Between(torch.relu), lambda m: m(inputs).mean(), input=inputs, target=torch.zeros(3)
    )

    assert event.module is None
    assert event.detail == {
        "phase": "input", "operation": "input", "value": "nan" if math.isnan(bad) else "inf",
        "fed_by": "1 entries of the batch",
    }  # fmt: skip


def test_a_target_is_named_in_its_place() -> None:
    target = {"boxes": torch.ones(2), "weights": torch.tensor([1.0, math.nan])}

    event = located(
        Between(torch.relu), lambda m: m(torch.ones(3, 4)).sum() * math.nan, target=target
    )

    assert event.detail["phase"] == "target"
    assert event.detail["operation"] == "target[weights]"


def test_a_mask_among_the_inputs_is_not_blamed() -> None:
    inputs = {"x": torch.ones(3, 4), "attention_mask": torch.tensor([0.0, -math.inf])}

    event = located(Between(lambda x: (x - x).log()), input=inputs)

    assert event.detail["operation"] == "log"


def test_a_parameter_the_update_broke_is_the_updates() -> None:
    model = Between(torch.relu)
    nn.init.constant_(model.second.bias, math.inf)

    with Observer(model) as observer, observer.step(5):
        event = origin(observer, lambda m: m(torch.ones(3, 4)).mean(), {}, STATE, 5, math.nan)

    assert event.step == 4
    assert event.module == "second"
    assert event.detail["phase"] == "update"
    assert event.detail["value"] == "inf"
    assert event.detail["fed_by"] == "4 entries of second.bias"


def test_looking_again_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    random = torch.get_rng_state()

    found = in_forward(model, lambda m: m(torch.full((3, 4), 1e38) * 1e10).mean(), STATE)

    assert found is not None
    assert found["operation"] == "mul"
    assert all(t.equal(before[name]) for name, t in model.state_dict().items())
    assert torch.get_rng_state().equal(random)


def test_the_second_look_draws_the_numbers_of_the_first() -> None:
    drawn: list[float] = []

    def run(model: nn.Module) -> Tensor:
        drawn.append(float(torch.rand(1)))
        return model(torch.ones(1, 4)).mean()

    model = nn.Linear(4, 1)
    state = torch.get_rng_state()
    run(model)
    torch.rand(100)
    in_forward(model, run, state)

    assert drawn[0] == drawn[1]


def test_a_model_that_keeps_what_it_computed_can_be_looked_at_again() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.fc(x)
            return (self.last - self.last).log()

    model = Keeping()
    model(torch.ones(1, 4))

    found = in_forward(model, lambda m: m(torch.ones(1, 4)).mean(), STATE)

    assert found is not None
    assert found["operation"] == "log"


def test_a_finite_forward_has_no_place() -> None:
    assert in_forward(mlp(), lambda m: m(torch.ones(2, 6)).mean(), STATE) is None


def test_what_the_target_raises_in_the_second_look_is_not_raised() -> None:
    def run(model: nn.Module) -> Tensor:
        raise ValueError

    assert in_forward(mlp(), run, STATE) is None


def test_gains_that_are_finite_have_no_place() -> None:
    model = mlp()
    with Observer(model) as observer, observer.step(0):
        loss = model(torch.ones(2, 6)).mean()
        observer.forward_done(loss)
        observer.backward(loss)
        observer.read()

        assert observer.last_gains.order
        assert in_backward(observer.graph_of_step, observer.last_gains) is None


def test_tensors_of_whole_numbers_are_finite() -> None:
    assert in_tensors({"labels": torch.tensor([1, 2]), "x": torch.ones(3)}) is None
    assert in_tensors({"z": torch.tensor([complex(math.nan, 0)])}) == ("z", "nan", 1)
