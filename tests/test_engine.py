"""The observer is not observable, and what it observes is true: on everything people write."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

from gradlint.engine import Observer
from gradlint.hooks.operations import MAX_CALLS
from gradlint.trace import Facts
from tests.observing import (
    FAMILIES,
    ConvBlock,
    Loss,
    cross_entropy,
    kept_outputs,
    kinds,
    mlp,
    observe,
    observed,
    paths,
    value,
    values,
)

FLOAT32 = 1e-6
"""Statistics of float32 tensors are taken in float64: the oracle's own rounding is the larger."""


def batch(rows: int = 8) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows))


def squared(model: nn.Module) -> Tensor:
    return model(batch()).square().mean()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Everything a step may change: parameters, buffers, gradients."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.grad
            state[f"{name}.grad"] = gradient.to_dense() if gradient.is_sparse else gradient.clone()
    return state


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name


def assert_bit_equal(model: nn.Module, loss: Loss, *, steps: int = 2) -> Observer:
    """Train copies of `model` bare and observed; every bit must agree."""
    bare, watched = copy.deepcopy(model), copy.deepcopy(model)
    observer = Observer(watched)
    ends = []
    for seen in (None, observer):
        subject = bare if seen is None else watched
        trained = [p for p in subject.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.01)
        torch.manual_seed(3)
        losses = []
        with seen or torch.enable_grad():
            for step in range(steps):
                optimizer.zero_grad()
                if seen is None:
                    loss_value = loss(subject)
                    loss_value.backward()
                else:
                    loss_value = observe(seen, loss, step=step)
                losses.append(loss_value.detach())
                optimizer.step()
        ends.append((torch.stack(losses), state_of(subject), torch.get_rng_state()))
    (bare_losses, bare_state, bare_random), (losses_seen, state, random) = ends
    assert bare_losses.equal(losses_seen)
    assert_equal(bare_state, state)
    assert bare_random.equal(random)
    return observer


# -- the observer is not observable ---------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_observing_changes_no_bit_of_a_training_step(family: str) -> None:
    build, draw = FAMILIES[family]

    observer = assert_bit_equal(build(), cross_entropy(*draw()), steps=3)

    assert len(values(observer, "loss", "")) == 3


def test_nothing_of_the_model_changes_but_what_training_changes() -> None:
    model = mlp(dropout=0.5)
    model[2].eval()
    model[0].requires_grad_(False)
    before = list(model.state_dict()), [m.training for m in model.modules()]
    trainable = [p.requires_grad for p in model.parameters()]

    observed(model, squared)

    assert (list(model.state_dict()), [m.training for m in model.modules()]) == before
    assert [p.requires_grad for p in model.parameters()] == trainable


def hooks_left(model: nn.Module) -> list[str]:
    places = [("module", m) for m in model.modules()] + [("tensor", p) for p in model.parameters()]
    return [
        f"{what}.{name}"
        for what, place in places
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
                     "_backward_pre_hooks", "_forward_hooks_with_kwargs",
                     "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
                     "_state_dict_hooks", "_post_accumulate_grad_hooks")
        if getattr(place, name, None)
    ]  # fmt: skip


@contextmanager
def nothing_left(model: nn.Module) -> Iterator[None]:
    """After it, no hook and no patch of ours is left anywhere."""
    enter, leave = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__
    backward = torch.Tensor.backward, torch.autograd.backward
    yield
    assert hooks_left(model) == []
    assert saved_tensors_hooks.__enter__ is enter
    assert saved_tensors_hooks.__exit__ is leave
    assert (torch.Tensor.backward, torch.autograd.backward) == backward
    assert not torch.is_anomaly_enabled()


def test_no_hook_is_left_after_a_normal_end() -> None:
    model = mlp()

    with nothing_left(model):
        observed(model, squared)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["forward", "backward", "between"])
def test_no_hook_is_left_after_an_exception(where: str, error: type[BaseException]) -> None:
    class Fragile(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if where == "forward":
                raise error
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            if where == "backward":
                raise error
            return gradient

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(Fragile.apply(self.fc1(x)))

    def loss(model: nn.Module) -> Tensor:
        found = squared(model)
        if where == "between":
            raise error
        return found

    model = Model()

    with nothing_left(model), pytest.raises(error):
        observed(model, loss)
    model.fc2(model.fc1(batch())).sum().backward()  # and the model runs on


def test_an_error_in_the_forward_leaves_what_was_measured_and_who_was_running() -> None:
    class Raising(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    model = nn.Sequential(nn.Linear(6, 6), Raising())
    observer = Observer(model)

    with pytest.raises(ValueError), observer, observer.step(0):
        model(batch())

    assert observer.calls.running == "1"
    assert observer.facts_of_modules["0"].output_shape == (8, 6)
    assert observer.facts_of_modules["1"].input_shape == (8, 6)


def test_an_observer_keeps_no_model_alive() -> None:
    model = mlp()
    observer = observed(model, squared)
    model_gone, weight_gone = weakref.ref(model), weakref.ref(model[0].weight)
    trace = observer.trace(Facts())

    del model, observer
    gc.collect()

    assert model_gone() is None
    assert weight_gone() is None
    assert len(trace) > 0


def test_an_observer_that_left_keeps_no_activation_alive() -> None:
    kept: list[weakref.ref[Tensor]] = []

    def loss(model: nn.Module) -> Tensor:
        output = model(batch())
        kept.append(weakref.ref(output))
        return output.square().mean()

    observer = observed(mlp(), loss)
    gc.collect()

    assert kept[0]() is None
    assert observer.captured is None


def test_an_output_the_user_keeps_has_no_hook_of_ours_on_it() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.fc(x)
            return self.last * 2

    model = Keeping()
    observer = observed(model, lambda m: squared(m))
    count = len(values(observer, "activation_grad_norm", "fc"))
    gone = weakref.ref(observer)

    del observer
    gc.collect()

    assert count == 1
    assert not model.last._backward_hooks
    assert gone() is None


def test_observers_nest_and_see_the_same() -> None:
    model = mlp()

    with (
        nothing_left(model),
        Observer(model) as outer,
        Observer(model) as inner,
        outer.step(0),
        inner.step(0),
    ):
        loss = squared(model)
        outer.forward_done(loss)
        inner.forward_done(loss, gains=False)
        outer.backward(loss)
        outer.gradients()
        inner.gradients()
        seen = outer.read(), inner.read()

    both = seen[0].keys() & seen[1].keys()
    assert ("gradient_norm", "0.weight") in both
    assert all(seen[0][key] == seen[1][key] for key in both)


def test_an_observer_may_be_entered_again() -> None:
    model = mlp()
    observer = Observer(model)

    for step in range(2):
        with nothing_left(model), observer:
            observe(observer, squared, step=step)

    assert [o.step for o in observer.observations if o.metric == "loss"] == [0, 1]


# -- copies ---------------------------------------------------------------------------


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda m: pickle.loads(pickle.dumps(m)), id="pickle"),
        pytest.param(saved_and_loaded, id="torch.save"),
    ],
)
def test_a_copy_made_while_watched_is_inert(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = mlp()

    with Observer(model) as observer, observer.step(0):
        twin = copied(model)
        twin(batch()).sum().backward()
        seen = observer.read()

    assert seen == {}
    assert observer.calls.counts == {}
    assert twin(batch()).equal(model(batch()))


def test_a_model_that_keeps_its_output_is_saved_while_watched_and_warns_of_nothing() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.fc(x)
            return self.last

    model = Keeping()

    with Observer(model) as observer, observer.step(0):
        output = model(batch())
        torch.save({"state": model.state_dict(), "output": output}, io.BytesIO())

    assert not output._backward_hooks


def test_an_average_of_the_weights_copied_in_the_loss_is_not_seen() -> None:
    def loss(model: nn.Module) -> Tensor:
        teacher = copy.deepcopy(model)
        with torch.no_grad():
            wanted = teacher(batch())
        return (model(batch()) - wanted - 1).square().mean()

    observer = observed(mlp(), loss)

    assert observer.facts_of_modules["0"].calls == 1
    assert len(values(observer, "activation_rms", "0")) == 1


# -- what is measured is true ---------------------------------------------------------


def test_activations_and_their_gradients_are_those_of_autograd() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    loss = cross_entropy(batch(), torch.arange(8) % 3)
    with kept_outputs(model) as kept:
        expected = loss(model)
    gradients = dict(zip(kept, torch.autograd.grad(expected, list(kept.values())), strict=True))

    observer = observed(model, loss)

    for path, output in kept.items():
        output = output.detach().double()
        assert value(observer, "activation_mean", path) == pytest.approx(float(output.mean()))
        assert value(observer, "activation_std", path) == pytest.approx(
            float(output.std(correction=0))
        )
        assert value(observer, "activation_abs_max", path) == float(output.abs().max())
        assert value(observer, "activation_grad_norm", path) == pytest.approx(
            float(gradients[path].double().norm())
        )
    assert value(observer, "loss", "") == float(expected.detach())


def test_parameters_their_gradients_and_the_update_are_true() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    with Observer(model, optimizer) as observer, observer.step(1):
        loss = squared(model)
        observer.forward_done(loss, gains=False)
        observer.backward(loss)
        observer.gradients(initial=True)
        observer.before_update()
        optimizer.step()
        observer.after_update()
        observer.learning_rates([0.01, 0.001])
        seen = observer.read()

    total = 0.0
    for name, parameter in model.named_parameters():
        weight, gradient = before[name].double(), parameter.grad.double()
        moved = (parameter.detach().double() - weight).norm() / weight.norm()
        assert seen["gradient_norm", name] == pytest.approx(float(gradient.norm()))
        assert seen["weight_norm", name] == pytest.approx(float(weight.norm()))
        assert seen["gradient_ratio", name] == pytest.approx(float(gradient.norm() / weight.norm()))
        assert seen["weight_std", name] == pytest.approx(float(weight.std(correction=0)))
        assert seen["update_to_weight_ratio", name] == pytest.approx(float(moved))
        total += float(gradient.norm()) ** 2
    assert seen["total_gradient_norm", ""] == pytest.approx(math.sqrt(total))
    assert seen["learning_rate", ""] == pytest.approx(0.01)
    assert ("init_gain", "0.bias") not in seen
    assert seen["init_gain", "0.weight"] == pytest.approx(
        float(before["0.weight"].double().std(correction=0)) * math.sqrt(6)
    )


def test_dead_units_are_those_that_never_fire_over_a_window() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 1))
    with torch.no_grad():
        model[0].bias[:3] = -1000.0
    observer = Observer(model)

    with observer:
        observer.open_window()
        for last in (False, True):
            with observer.step(0):
                loss = squared(model)
                observer.forward_done(loss)
                observer.backward(loss)
                if last:
                    observer.close_window()
                observer.read()

    fired = (model[0](batch()) > 0).any(dim=0)
    assert value(observer, "dead_fraction", "1") == pytest.approx(1 - float(fired.double().mean()))
    assert value(observer, "dead_fraction", "1") >= 0.3
    assert value(observer, "dead_positions", "1") == 16


def test_a_dead_layer_behind_a_shared_rectifier_is_found() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.out = nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.fc2(self.act(self.fc1(x)))))

    model = Shared()
    nn.init.constant_(model.fc2.bias, -1000.0)
    nn.init.constant_(model.fc1.bias, 1.0)

    with Observer(model) as observer, observer.step(0):
        observer.forward_done(squared(model))
        observer.close_window()
        seen = observer.read()

    assert seen["dead_fraction", "fc2:relu"] == 1.0
    assert seen["dead_fraction", "fc1:relu"] < 0.5
    assert ("dead_fraction", "act") not in seen


@pytest.mark.parametrize(
    ("activation", "site"),
    [
        (nn.Sigmoid(), "1"), (nn.Tanh(), "1"), (nn.Hardtanh(), "1"), (nn.Hardsigmoid(), "1"),
        (nn.Hardtanh(-50, 50), "1"),
    ],
    ids=repr,
)  # fmt: skip
def test_saturation_is_the_share_of_flat_derivatives(activation: nn.Module, site: str) -> None:
    model = nn.Sequential(nn.Linear(6, 40), activation)
    nn.init.normal_(model[0].weight, std=2.0)
    z = model[0](batch()).detach().requires_grad_()
    (slope,) = torch.autograd.grad(activation(z).sum(), z)
    steepest = {"Sigmoid": 0.25, "Hardsigmoid": 1 / 6}.get(type(activation).__name__, 1.0)
    expected = float((slope / steepest < 0.05).double().mean())

    observer = observed(model, squared)

    assert value(observer, "saturated_share", site) == pytest.approx(expected)


def test_a_step_without_detail_measures_what_rules_always_need() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2), nn.Sigmoid())

    with Observer(model) as observer, observer.step(1, detailed=False):
        loss = squared(model)
        observer.forward_done(loss)
        observer.backward(loss)
        observer.gradients()
        observer.close_window()
        observer.read()

    metrics = {o.metric for o in observer.observations}
    assert {"loss", "gradient_norm", "weight_norm", "total_gradient_norm", "gradient_ratio",
            "dead_fraction", "pre_activation_grad_norm"} <= metrics  # fmt: skip
    assert not {m for m in metrics if m.startswith("activation_")}
    assert "gradient_kurtosis" not in metrics
    assert "saturated_share" not in metrics


def test_the_layers_of_a_decay_are_told_from_the_first_layer_with_a_gradient() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    nn.init.constant_(model[0].bias, -1000.0)  # dead: no gradient reaches it

    observer = observed(model, squared)

    assert [flow.site.path for flow in observer.flows] == ["2", "4"]
    assert set(observer.flows[0].layers) == {"3", "4"}
    assert observer.flows[1].layers == {}
    assert value(observer, "pre_activation_grad_norm", "0") == 0


def test_symmetric_units_are_measured_where_a_layer_has_two() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)

    observer = observed(model, squared)

    assert value(observer, "symmetric_share", "0.weight") == 1.0
    assert paths(observer, "symmetric_share") == ["0.weight"]  # the head has one unit


def test_a_module_called_more_often_than_the_limit_is_read_up_to_it() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(MAX_CALLS + 3):
                x = torch.tanh(self.cell(x))
            return x

    model = Loop()
    observer = observed(model, squared)

    assert observer.facts_of_modules["cell"].calls == MAX_CALLS + 3
    assert len(values(observer, "activation_rms", "cell")) == MAX_CALLS
    assert len(values(observer, "activation_rms", "cell:tanh")) == MAX_CALLS
    assert len(values(observer, "gradient_norm", "cell.weight")) == 1
    hidden = batch()
    for seen in values(observer, "activation_rms", "cell:tanh"):
        hidden = torch.tanh(model.cell(hidden))
        assert seen == pytest.approx(float(hidden.detach().square().mean().sqrt()), rel=1e-5)


# -- what breaks hooks elsewhere ------------------------------------------------------


@pytest.mark.parametrize("inplace", [True, False])
def test_in_place_activations_give_the_values_of_the_others(inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 2))
    with kept_outputs(nn.Sequential(model[0], nn.ReLU(), model[2])) as kept:
        pass
    before = model[0](batch()).detach().double()
    z = model[0](batch())
    loss = model[2](z.relu()).square().mean()
    (gradient,) = torch.autograd.grad(loss, z)
    del kept

    observer = observed(model, squared)

    assert value(observer, "activation_mean", "0") == pytest.approx(float(before.mean()))
    assert value(observer, "activation_zero_share", "0") == 0
    assert value(observer, "activation_mean", "1") == pytest.approx(float(before.relu().mean()))
    assert value(observer, "activation_grad_norm", "0") == pytest.approx(
        float(gradient.double().norm())
    )


def test_a_sum_in_place_gives_the_values_of_a_sum() -> None:
    class InPlace(nn.Module):
        def __init__(self, written: bool) -> None:
            super().__init__()
            self.fc1, self.fc2, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.written = written

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc1(x)
            z = self.fc2(x)
            if self.written:
                y += z
            else:
                y = y + z
            return self.out(y)

    written, plain = InPlace(True), InPlace(False)
    written.load_state_dict(plain.state_dict())

    seen = [observed(model, squared) for model in (written, plain)]

    for metric in ("activation_mean", "activation_std", "activation_grad_norm"):
        for path in ("fc1", "fc2", "out"):
            assert value(seen[0], metric, path) == value(seen[1], metric, path)
    assert kinds(seen[0]) == kinds(seen[1]) == ["linear", "linear", "add", "linear"]


def test_a_residual_block_in_place_is_bit_equal() -> None:
    images = torch.randn(4, 3, 8, 8)

    observer = assert_bit_equal(ConvBlock(3, 6, 2), lambda m: m(images).square().mean())

    assert len(values(observer, "activation_grad_norm", "bn2")) == 2


def test_a_view_changed_in_place_is_survived_and_not_mistaken() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.fc = nn.Flatten(), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            flat = self.flat((x * self.fc.weight.mean()).reshape(8, 2, 3))
            flat += 1
            return self.fc(flat)

    model = Viewing()
    flat = (batch() * model.fc.weight.mean()).detach()
    expected = torch.autograd.grad(model.fc(flat + 1).square().mean(), model.fc.bias)[0]

    observer = assert_bit_equal(model, squared)

    seen = values(observer, "activation_mean", "flat")
    assert seen[0] == pytest.approx(float(flat.double().mean()), rel=1e-5)
    assert values(observer, "gradient_norm", "fc.bias")[0] == pytest.approx(
        float(expected.norm()), rel=FLOAT32
    )


@dataclass
class Output:
    logits: Tensor
    extra: Tensor | None = None


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        pytest.param(lambda y: {"extra": 3, "out": y}, lambda o: o["out"], id="dict"),
        pytest.param(lambda y: (y, y.detach()), lambda o: o[0], id="tuple"),
        pytest.param(lambda y: [None, y], lambda o: o[1], id="list"),
        pytest.param(lambda y: Output(y), lambda o: o.logits, id="dataclass"),
        pytest.param(lambda y: {"a": {"b": (y,)}}, lambda o: o["a"]["b"][0], id="nested"),
        pytest.param(
            lambda y: pytest.importorskip("transformers.utils").ModelOutput(logits=y),
            lambda o: o.logits,
            id="ModelOutput",
        ),
    ],
)
def test_outputs_of_every_form_are_measured_with_their_gradients(
    wrap: Callable[[Tensor], Any], unwrap: Callable[[Any], Tensor]
) -> None:
    class Wrapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Any:
            return wrap(self.fc(x))

    model = nn.ModuleDict({"inner": Wrapping(), "head": nn.Linear(4, 1)})
    y = model["inner"].fc(batch())
    (gradient,) = torch.autograd.grad(model["head"](y).square().mean(), y)

    observer = observed(model, lambda m: m["head"](unwrap(m["inner"](batch()))).square().mean())

    for path in ("inner", "inner.fc"):
        assert value(observer, "activation_mean", path) == pytest.approx(
            float(y.detach().double().mean())
        )
        assert value(observer, "activation_grad_norm", path) == pytest.approx(
            float(gradient.double().norm())
        )


def test_inputs_by_keyword_alone_are_known() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, *, x: Tensor, scale: float = 1.0) -> Tensor:
            return self.fc(input=x) * scale

    observer = observed(Keywords(), lambda m: m(x=batch(), scale=2.0).square().mean())

    assert observer.facts_of_modules[""].input_shape == (8, 6)
    assert observer.facts_of_modules["fc"].input_shape == (8, 6)
    assert value(observer, "activation_grad_norm", "fc") > 0


@pytest.mark.parametrize(
    ("prepare", "given"),
    [
        pytest.param(lambda x: x, True, id="as-it-is"),
        pytest.param(lambda x: x.view(4, 12), True, id="in-another-shape"),
        pytest.param(lambda x: x[:, :3], False, id="a-part"),
        pytest.param(lambda x: x / 255, False, id="scaled"),
        pytest.param(lambda x: x.clone(), False, id="copied"),
        pytest.param(lambda x: x.div_(255), False, id="scaled-in-place"),
    ],
)
def test_a_layer_that_is_given_the_model_s_input_as_it_is_is_known(prepare, given) -> None:
    class Prepared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LazyLinear(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(prepare(x)))

    model = Prepared()
    model(batch())
    whole = torch.randn(16, 6)
    for inputs in (batch(), whole[8:]):
        observer = observed(model, lambda m, inputs=inputs: m(inputs).square().mean())

        assert observer.facts_of_modules["first"].input_given is given
        assert observer.facts_of_modules["second"].input_given is False


def test_a_shared_layer_has_a_value_for_each_use_and_one_gradient() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.again = self.fc

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.fc(x).tanh())

    model = Twice()
    first = model.fc(batch())
    second = model.fc(first.tanh())
    loss = second.square().mean()
    gradients = torch.autograd.grad(loss, [second, first, model.fc.weight])

    observer = assert_bit_equal(model, squared, steps=1)

    assert values(observer, "activation_rms", "fc") == pytest.approx(
        [float(t.detach().square().mean().sqrt()) for t in (first, second)]
    )
    assert values(observer, "activation_grad_norm", "fc") == pytest.approx(
        [float(g.norm()) for g in gradients[:2]]
    )
    assert value(observer, "gradient_norm", "fc.weight") == pytest.approx(
        float(gradients[2].norm())
    )
    assert observer.facts_of_parameters["fc.weight"].aliases == ("again.weight",)
    assert "again.weight" not in observer.facts_of_parameters


def test_tied_weights_have_the_gradient_of_both_uses() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embed(tokens))

    tokens = torch.arange(9)
    model = Tied()
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(model(tokens), tokens.roll(1)), model.embed.weight
    )

    observer = assert_bit_equal(model, cross_entropy(tokens, tokens.roll(1)), steps=1)

    assert value(observer, "gradient_norm", "embed.weight") == pytest.approx(
        float(gradient.norm()), rel=FLOAT32
    )


class Checkpointed(nn.Module):
    """A stem, a checkpointed body with BatchNorm and dropout, a head."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.body = nn.Sequential(
            nn.Linear(8, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(8, 8),
            nn.Sigmoid(),
        )
        self.head = nn.Linear(8, 2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, self.stem(x), use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_a_checkpoint_is_observed_once_and_recomputed_as_often_as_without_us(
    reentrant: bool,
) -> None:
    model = Checkpointed(reentrant)

    observer = assert_bit_equal(model, squared)  # running statistics, dropout masks and all

    for path in ("stem", "body", "body.0", "body.1", "body.5", "head"):
        assert observer.facts_of_modules[path].calls == 1
        assert len(values(observer, "activation_rms", path)) == 2
    assert len(values(observer, "activation_grad_norm", "stem")) == 2
    assert len(values(observer, "activation_grad_norm", "body.4")) == (0 if reentrant else 2)
    assert len(values(observer, "gradient_norm", "body.0.weight")) == 2
    # What a checkpoint packed is not read: that would run its forward once more.
    assert values(observer, "saturated_share", "body.5") == []


def test_a_saved_tensor_hook_of_the_users_is_not_run_by_us() -> None:
    unpacked: list[int] = []

    def loss(model: nn.Module) -> Tensor:
        with saved_tensors_hooks(lambda t: t, lambda t: unpacked.append(1) or t):
            y = model(batch())
            y = (y * y.detach() * 3).clamp(min=torch.tensor(0.0)) / torch.tensor(2.0)
            return (y ** torch.tensor(2.0)).mean()

    bare = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 2), nn.GELU())
    loss(bare).backward()
    count = len(unpacked)

    observed(copy.deepcopy(bare), loss)

    assert len(unpacked) == 2 * count


def test_autocast_is_observed_in_its_own_dtype() -> None:
    def loss(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(batch())
        return output.float().square().mean()

    observer = assert_bit_equal(mlp(), loss)

    assert values(observer, "activation_std", "0")[0] > 0
    assert all(math.isfinite(flow.total) for flow in observer.flows)
    assert [op.kind for op in observer.graph.of_kind("linear", "relu")] == [
        "linear", "relu", "linear", "relu", "linear",
    ]  # fmt: skip
    assert observer.facts_of_parameters["0.weight"].dtype == "float32"


def test_sparse_gradients_of_embeddings_are_measured() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 6, sparse=True), nn.Linear(6, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embed(tokens))

    model = Sparse()
    tokens = torch.tensor([1, 1, 7, 30])
    model.embed.sparse = False
    (gradient,) = torch.autograd.grad(squared_of(model, tokens), model.embed.weight)
    model.embed.sparse = True

    observer = assert_bit_equal(model, lambda m: squared_of(m, tokens), steps=1)

    assert value(observer, "gradient_norm", "embed.weight") == pytest.approx(
        float(gradient.norm()), rel=FLOAT32
    )
    assert paths(observer, "symmetric_share") == ["head.weight"]


def squared_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs).square().mean()


def test_frozen_layers_have_weights_and_no_gradients() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[0].requires_grad_(False)
    model[4].requires_grad_(False)

    observer = assert_bit_equal(model, squared, steps=1)

    assert paths(observer, "gradient_norm") == ["2.weight", "2.bias"]
    assert set(paths(observer, "weight_norm")) == {n for n, _ in model.named_parameters()}
    assert sorted(paths(observer, "activation_grad_norm")) == ["", "2", "3", "4"]
    assert observer.facts_of_parameters["0.weight"].gradient == "missing"
    assert observer.facts_of_parameters["2.weight"].gradient == "present"
    assert [flow.site.path for flow in observer.flows] == ["2", "4"]


def test_a_lazy_layer_is_known_once_it_has_run() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    observer = Observer(model)

    with observer:
        observe(observer, squared)

    assert observer.facts_of_parameters["0.weight"].shape == (4, 6)
    assert observer.facts_of_parameters["0.weight"].fan_in == 6
    assert observer.facts_of_modules["0"].kind == "Linear"
    assert observer.facts_of_modules["0"].options["in_features"] == 6
    assert value(observer, "gradient_norm", "0.weight") == pytest.approx(
        float(model[0].weight.grad.norm())
    )


def test_a_lazy_layer_that_never_runs_is_passed_over() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.spare = nn.Linear(6, 2), nn.LazyLinear(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    observer = observed(Spare(), squared)

    assert observer.facts_of_parameters["spare.weight"].gradient == "missing"
    assert paths(observer, "weight_norm") == ["fc.weight", "fc.bias"]


def test_complex_parameters_are_measured() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x.to(torch.complex64) @ self.w).abs()

    model = Complex()

    observer = assert_bit_equal(model, squared, steps=1)

    assert value(observer, "weight_norm", "w") == pytest.approx(
        float(torch.linalg.vector_norm(model.w.detach())), rel=FLOAT32
    )
    (linear,) = observer.graph.of_kind("linear")
    assert linear.parameters == ("w",)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.tanh(self.fc1(x)))


def penalized(model: nn.Module) -> Tensor:
    x = batch().requires_grad_()
    score = model(x).sum()
    (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    return score / 8 + 10 * (gradient.norm(dim=1) - 1).square().mean()


def test_a_gradient_penalty_is_observed_in_the_final_backward_alone() -> None:
    model = Critic()
    twin = copy.deepcopy(model)
    with kept_outputs(twin) as kept:
        loss = penalized(twin)
    (gradient,) = torch.autograd.grad(loss, kept["fc1"], retain_graph=True)

    observer = assert_bit_equal(model, penalized, steps=1)

    assert value(observer, "activation_grad_norm", "fc1") == pytest.approx(
        float(gradient.norm()), rel=FLOAT32
    )
    loss.backward()
    assert value(observer, "gradient_norm", "fc1.weight") == pytest.approx(
        float(twin.fc1.weight.grad.norm()), rel=FLOAT32
    )


def test_a_model_that_differentiates_itself_is_observed() -> None:
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            return slope

    observer = assert_bit_equal(Field(), squared)

    assert values(observer, "gradient_norm", "net.0.weight")[0] > 0


@pytest.mark.parametrize(
    "transformed",
    [
        pytest.param(lambda net, x: torch.func.vmap(net)(x), id="vmap"),
        pytest.param(
            lambda net, x: torch.func.vmap(torch.func.grad(lambda v: net(v).sum()))(x), id="grad"
        ),
        pytest.param(lambda net, x: torch.func.jacrev(net)(x[0]), id="jacrev"),
        pytest.param(
            lambda net, x: torch.func.functional_call(net, dict(net.named_parameters()), (x,)),
            id="functional-call",
        ),
    ],
)
def test_transforms_inside_a_forward_are_survived(
    transformed: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    class Transforming(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.net = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 3), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return transformed(self.net, self.stem(x))

    observer = assert_bit_equal(Transforming(), squared)

    assert len(values(observer, "activation_rms", "stem")) == 2
    assert values(observer, "gradient_norm", "net.0.weight")[0] > 0


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_recurrent_layers_are_one_module_with_one_output(kind: Any, packed: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = kind(5, 7, num_layers=2), nn.Linear(7, 2)

        def forward(self, x: Any) -> Tensor:
            output, _ = self.rnn(x)
            return self.head(output.data if packed else output)

    parts = [torch.randn(n, 5) for n in (6, 4, 2)]
    x = pack_sequence(parts) if packed else torch.randn(6, 3, 5)
    model = Recurrent()
    output = model.rnn(x)[0]
    output = output.data if packed else output
    (gradient,) = torch.autograd.grad(model.head(output).square().mean(), output)

    observer = assert_bit_equal(model, lambda m: m(x).square().mean(), steps=1)

    assert observer.facts_of_modules["rnn"].calls == 1
    assert value(observer, "activation_rms", "rnn") == pytest.approx(
        float(output.detach().square().mean().sqrt()), rel=FLOAT32
    )
    assert value(observer, "activation_grad_norm", "rnn") == pytest.approx(
        float(gradient.norm()), rel=FLOAT32
    )
    assert set(paths(observer, "gradient_norm")) == {n for n, _ in model.named_parameters()}


def test_a_cell_called_five_times_has_five_values_up_to_the_limit() -> None:
    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for _ in range(5):
                state = self.cell(x, state)
            return state[0]

    observer = assert_bit_equal(Unrolled(), squared, steps=1)

    assert observer.facts_of_modules["cell"].calls == 5
    assert len(values(observer, "activation_rms", "cell")) == MAX_CALLS
    assert len(values(observer, "gradient_norm", "cell.weight_hh")) == 1


def test_what_runs_without_gradient_is_measured_forward_alone() -> None:
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.student = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = self.teacher(x)
            return self.student(x) - wanted

    observer = assert_bit_equal(Teacher(), squared, steps=1)

    assert value(observer, "activation_rms", "teacher") > 0
    assert sorted(paths(observer, "activation_grad_norm")) == ["", "student"]
    assert observer.facts_of_parameters["teacher.weight"].gradient == "missing"
    assert kinds(observer) == ["linear", "shift"]


def test_an_identity_that_returns_its_input_is_measured() -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 2), nn.Identity())

    observer = assert_bit_equal(model, squared, steps=1)

    assert paths(observer, "activation_rms") == ["0", "1", "2", ""]
    assert value(observer, "activation_grad_norm", "1") == value(
        observer, "activation_grad_norm", "2"
    )


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(lambda y: y.argmax(1), id="integers"),
        pytest.param(lambda y: y[:0], id="empty"),
        pytest.param(lambda y: None, id="none"),
        pytest.param(lambda y: {"text": "abc", "n": 3}, id="no-tensor"),
        pytest.param(lambda y: y.to_sparse(), id="sparse"),
        pytest.param(lambda y: object(), id="object"),
    ],
)
def test_outputs_that_hold_nothing_to_measure_are_passed_over(
    output: Callable[[Tensor], Any],
) -> None:
    class Side(nn.Module):
        def forward(self, y: Tensor) -> Any:
            return output(y)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.side = nn.Linear(6, 3), Side()

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            self.side(y)
            return y

    observer = assert_bit_equal(Model(), squared, steps=1)

    assert paths(observer, "activation_rms") == ["fc", ""]
    assert observer.facts_of_modules["side"].calls == 1


def test_a_loss_without_a_graph_is_a_number_and_nothing_more() -> None:
    model = mlp()

    with Observer(model) as observer, observer.step(0):
        observer.forward_done(squared(model).detach())
        seen = observer.read()

    assert ("loss", "") in seen
    assert len(observer.graph) == 0


def test_a_compiled_model_is_run_unbroken_and_its_original_is_watched() -> None:
    model = mlp()
    compiled = torch.compile(model, backend="eager")

    observer = Observer(model)
    with nothing_left(model), observer, observer.step(0):
        loss = compiled(batch()).square().mean()
        observer.forward_done(loss)
        observer.backward(loss)
        observer.gradients()
        seen = observer.read()

    expected = torch.autograd.grad(squared(model), model[0].weight)[0]
    assert seen["gradient_norm", "0.weight"] == pytest.approx(float(expected.norm()), rel=1e-5)


def test_values_that_are_not_finite_are_read_back_as_they_are() -> None:
    model = nn.Linear(6, 2)
    nn.init.constant_(model.bias, math.inf)

    observer = observed(model, squared)

    assert value(observer, "loss", "") == math.inf
    assert not math.isfinite(value(observer, "total_gradient_norm", ""))
    assert value(observer, "activation_abs_max", "") == math.inf


def test_what_runs_in_not_reading_is_not_read() -> None:
    model = mlp()

    with Observer(model) as observer, observer.step(0):
        with observer.not_reading():
            model(batch())
        assert observer.read() == {}
        model(batch())
        assert observer.read() != {}


def test_one_reading_gives_every_value_by_metric_and_path() -> None:
    model = mlp()
    with Observer(model) as observer, observer.step(3):
        loss = squared(model)
        observer.forward_done(loss, gains=False)
        observer.backward(loss)
        observer.gradients()
        seen = observer.read()

    assert {(o.metric, o.site.path) for o in observer.observations} == set(seen)
    assert {o.step for o in observer.observations} == {3}
    assert observer.read() == {}


def test_depth_is_the_order_of_the_first_end() -> None:
    observer = observed(mlp(), squared)

    trace = observer.trace(Facts())

    assert [s.path for s in trace.of("activation_rms").sites] == ["0", "1", "2", "3", "4", "5", ""]
    assert [trace.modules[str(i)].depth for i in range(6)] == list(range(6))
