"""`gradlint.check`: what it leaves alone, and what it says of one network in several forms."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradlint
from gradlint.errors import GradientHealthError, TargetError, UsageError
from gradlint.report import Report


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (128,), generator=generator)
    centers = 2 * torch.randn(4, 16, generator=torch.Generator().manual_seed(9))
    return centers[labels] + torch.randn(128, 16, generator=generator), labels


BATCHES = [batch(seed) for seed in range(4)]


def codes(report: Report) -> list[str]:
    return [found.code for found in report.findings]


def test_the_users_objects_and_random_states_stay_bit_equal() -> None:
    model = nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4)
    ).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    inputs, labels = (t.clone() for t in BATCHES[0])
    functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    gradients = [p.grad.clone() for p in model.parameters()]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state())
    hooks = [(m._forward_hooks.copy(), m._forward_pre_hooks.copy()) for m in model.modules()]

    gradlint.check(model, (inputs, labels), functional.cross_entropy, optimizer, steps=5)

    assert_equal(before, (model.state_dict(), optimizer.state_dict()))
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, model.parameters(), strict=True))
    assert torch.equal(inputs, BATCHES[0][0])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2][1], np.random.get_state()[1])
    assert hooks == [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert not model.training


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


class Functional(nn.Module):
    def __init__(self, activation: Callable[[Tensor], Tensor], depth: int, bias: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(depth))
        self.head = nn.Linear(16, 4)
        self.activation = activation
        nn.init.constant_(self.layers[-1].bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.head(x)


def sequential(activation: Callable[[], nn.Module], depth: int, bias: float) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(16, 16), activation()]
    nn.init.constant_(layers[-2].bias, bias)
    return nn.Sequential(*layers, nn.Linear(16, 4))


class OwnLoss(nn.Module):
    """A loss with a parameter, running statistics and a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.norm = nn.BatchNorm1d(4)
        self.calls = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return functional.cross_entropy(self.scale * self.norm(outputs), targets)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.mark.parametrize("data", [BATCHES, BATCHES[0][0]], ids=["targets", "no-targets"])
@pytest.mark.parametrize("form", [lambda model: model, lambda model: mlp], ids=["model", "builder"])
def test_a_loss_that_is_a_module_stays_bit_equal_and_is_trained_on_its_copy(form, data) -> None:
    model, loss = mlp(), OwnLoss()
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    before = copy.deepcopy(loss.state_dict())
    given = form(model)

    gradlint.check(given, data, loss, optimizer if given is model else None, steps=3)

    assert_equal(before, loss.state_dict())
    assert loss.scale.grad is None
    assert loss.calls == 0


def test_a_loss_that_is_the_models_method_judges_the_copy() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)
            self.uncertainty = nn.Parameter(torch.zeros(()))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layer(inputs)

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            loss = functional.cross_entropy(outputs, targets)
            return loss * torch.exp(-self.uncertainty) + self.uncertainty

    model = Weighted()

    report = gradlint.check(model, BATCHES, model.loss, steps=3)

    assert model.uncertainty.grad is None
    assert "GL701" not in codes(report)


class Around(torch.optim.Optimizer):
    """An optimizer around another one, as sharpness-aware minimization has it."""

    def __init__(self, parameters: Any, inner: Any, **options: Any) -> None:
        super().__init__(parameters, options)
        self.inner = inner(self.param_groups, **options)
        self.param_groups = self.inner.param_groups

    def step(self, closure: Any = None) -> None:
        self.inner.step()


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.LBFGS(p, max_iter=3),
        lambda p: Around(p, torch.optim.SGD, lr=0.1, momentum=0.9),
    ],
    ids=["lbfgs", "around-another"],
)
def test_optimizers_that_keep_more_than_a_state_are_copied_whole(build) -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())

    report = gradlint.check(model, BATCHES, functional.cross_entropy, build(model.parameters()))

    assert report.verdict == "healthy", report
    assert report.series["loss"][-1][1] < report.series["loss"][0][1]
    assert_equal(before, model.state_dict())


def test_the_generator_of_a_loader_stays_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    data = torch.utils.data.TensorDataset(*BATCHES[0])
    loader = torch.utils.data.DataLoader(data, 32, shuffle=True, generator=generator)
    before = generator.get_state()

    gradlint.check(mlp(), loader, functional.cross_entropy, steps=2)

    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_contexts_without_gradients_around_a_check_are_lifted(context) -> None:
    with context():
        inside = (torch.randn(32, 16), torch.randint(0, 4, (32,)))
        report = gradlint.check(mlp(), inside, functional.cross_entropy, steps=3)
        assert not torch.is_grad_enabled()

    assert report.verdict == "healthy"


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        pytest.param(
            [
                lambda: sequential(nn.Sigmoid, 10, 0.0),
                lambda: Functional(torch.sigmoid, 10, 0.0),
                lambda: Functional(functional.sigmoid, 10, 0.0),
            ],
            "GL301",
            id="deep-sigmoid",
        ),
        pytest.param(
            [
                lambda: sequential(nn.ReLU, 3, -50.0),
                lambda: sequential(lambda: nn.ReLU(inplace=True), 3, -50.0),
                lambda: Functional(functional.relu, 3, -50.0),
                lambda: Functional(torch.relu_, 3, -50.0),
                lambda: Functional(lambda x: x.clamp(min=0), 3, -50.0),
            ],
            "GL201",
            id="dead-relu",
        ),
        pytest.param(
            [
                lambda: sequential(nn.ReLU, 3, 0.0),
                lambda: sequential(lambda: nn.ReLU(inplace=True), 3, 0.0),
                lambda: Functional(functional.relu, 3, 0.0),
            ],
            None,
            id="healthy",
        ),
    ],
)
def test_every_form_of_a_network_gets_the_same_findings(
    forms: list[Callable[[], nn.Module]], expected: str | None
) -> None:
    found = [
        sorted({f.code for f in gradlint.check(form, BATCHES, functional.cross_entropy).findings})
        for form in forms
    ]

    assert all(one == found[0] for one in found)
    assert (expected in found[0]) if expected else found[0] == []


def test_two_runs_with_one_seed_give_one_report() -> None:
    def build() -> nn.Module:
        return sequential(nn.Tanh, 3, 0.0)

    first, second = (
        gradlint.check(build, BATCHES, functional.cross_entropy, seed=3, steps=6) for _ in range(2)
    )

    assert first.to_json() == second.to_json()


def test_a_sick_model_raises_for_those_who_ask() -> None:
    model = nn.Sequential(nn.Linear(16, 4), nn.Softmax(dim=1))
    report = gradlint.check(model, BATCHES, functional.cross_entropy, steps=2)

    with pytest.raises(GradientHealthError) as caught:
        report.raise_for("error")

    assert caught.value.report is report
    assert codes(report)[0] == "GL601"


def test_nan_in_the_data_is_a_finding_and_no_exception() -> None:
    inputs, labels = BATCHES[0]
    poisoned = inputs.clone()
    poisoned[3, 3] = float("nan")

    report = gradlint.check(nn.Linear(16, 4), (poisoned, labels), functional.cross_entropy)

    assert codes(report)[0] == "GL501"
    assert report.exit_code == 1


def test_everything_frozen_is_a_finding_and_no_exception() -> None:
    model = nn.Linear(16, 4).requires_grad_(False)

    report = gradlint.check(model, BATCHES[0], functional.cross_entropy)

    assert codes(report)[0] == "GL712"
    assert report.exit_code == 1


def test_a_forward_that_raises_says_where() -> None:
    with pytest.raises(TargetError, match="forward raised"):
        gradlint.check(nn.Linear(7, 4), BATCHES[0], functional.cross_entropy)


def test_a_device_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="available: cpu"):
        gradlint.check(nn.Linear(16, 4), BATCHES[0], functional.cross_entropy, device="abacus")


class CompiledForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.last = nn.Linear(32, 4)

    @torch.compile(backend="eager")
    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(functional.relu(self.first(inputs)))


@pytest.mark.parametrize(
    "build",
    [
        CompiledForward,
        lambda: nn.Sequential(torch.compile(mlp(), backend="eager")),
        lambda: torch.compile(mlp(), backend="eager"),
    ],
    ids=["forward", "part", "whole"],
)
def test_compiled_regions_are_looked_into(build) -> None:
    report = gradlint.check(build(), BATCHES, functional.cross_entropy, steps=2)

    assert "GL001" not in codes(report)
    assert sum("activation_std" in row.metrics and row.leaf for row in report.modules) >= 2


def scripted_activation() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), torch.jit.script(nn.Tanh()), nn.Linear(32, 4))


def scripted_layer() -> nn.Module:
    return nn.Sequential(torch.jit.script(mlp()[0]), *mlp()[1:])


def nested(layout: torch.layout) -> tuple[Tensor, Tensor]:
    rows = [torch.randn(3, 16), torch.randn(5, 16)]
    return torch.nested.nested_tensor(rows, layout=layout), torch.randint(0, 4, (8,))


def nested_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(torch.cat(outputs.unbind()), targets)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "data", "loss"),
    [
        (scripted_activation, lambda: BATCHES, functional.cross_entropy),
        (scripted_layer, lambda: BATCHES, functional.cross_entropy),
        (mlp, lambda: nested(torch.jagged), nested_loss),
        (mlp, lambda: nested(torch.strided), nested_loss),
    ],
    ids=["scripted-activation", "scripted-layer", "nested-jagged", "nested-strided"],
)
def test_what_cannot_be_looked_into_is_no_crash(model, data, loss) -> None:
    report = gradlint.check(model(), data(), loss, steps=6)

    assert report.verdict == "healthy", report
