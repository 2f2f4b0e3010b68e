"""What modules, parameters and optimizers are called, and what is known of them unmeasured."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradlint.hooks.sites import (
    clean_path,
    fans,
    module_facts,
    optimizer_facts,
    parameter_facts,
    unit_axis,
    units_first,
)
from tests.observing import mlp, observed


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("_orig_mod.fc", "fc"), ("module.fc", "fc"), ("module._orig_mod.fc", "fc"),
        ("_orig_mod.module.fc", "fc"), ("blocks.0._checkpoint_wrapped_module.fc", "blocks.0.fc"),
        ("_fsdp_wrapped_module.blocks.1._fsdp_wrapped_module.fc", "blocks.1.fc"),
        ("encoder._orig_mod.fc", "encoder.fc"), ("fc", "fc"), ("", ""),
        ("submodule.fc", "submodule.fc"), ("modules.0", "modules.0"),
        ("_orig_mod", ""), ("module", ""), ("blocks.0._checkpoint_wrapped_module", "blocks.0"),
    ],
)  # fmt: skip
def test_wrappers_leave_no_trace_in_a_path(path: str, clean: str) -> None:
    assert clean_path(path) == clean


def test_a_module_is_known_before_it_runs() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.25), nn.BatchNorm1d(3, eps=1e-4))
    model[1].eval()

    facts = module_facts(model)

    assert list(facts) == ["", "0", "1", "2"]
    assert facts[""].leaf is False
    assert facts["0"].leaf is True
    assert facts["0"].kind == "Linear"
    assert facts["0"].parameters == ("0.weight", "0.bias")
    assert facts["0"].options["in_features"] == 4
    assert facts["0"].options["bias"] is True
    assert facts["1"].options["p"] == 0.25
    assert facts["1"].training is False
    assert facts["2"].options["eps"] == 1e-4
    assert facts["2"].options["track_running_stats"] is True
    assert facts["2"].calls == 0


def test_a_class_of_the_users_is_told_from_torchs() -> None:
    class Mine(nn.Module):
        pass

    facts = module_facts(nn.Sequential(Mine(), nn.ReLU()))

    assert facts["0"].ours
    assert not facts["1"].ours


def test_a_class_whose_forward_drops_out_by_its_mode_is_known() -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5, training=self.training)

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if self.training else x.relu()

    known = module_facts(nn.Sequential(Functional(), Branching(), nn.Dropout()))

    assert [known[p].options.get("reads_mode") for p in "012"] == [True, None, None]


def test_a_tied_parameter_has_one_path_and_an_alias() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

    facts = parameter_facts(Tied(), None)

    assert list(facts) == ["embed.weight"]
    assert facts["embed.weight"].aliases == ("head.weight",)
    assert facts["embed.weight"].in_optimizer is None
    assert facts["embed.weight"].numel == 28


def test_parameters_know_whether_the_optimizer_holds_them() -> None:
    model = mlp()
    model[0].bias.requires_grad_(False)

    facts = parameter_facts(model, torch.optim.SGD(model[0].parameters(), lr=0.1))

    assert facts["0.weight"].in_optimizer is True
    assert facts["0.bias"].requires_grad is False
    assert facts["3.weight"].in_optimizer is False


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(6, 4), (6, 4)), (nn.Conv2d(3, 8, 5), (75, 200)),
        (nn.Conv2d(8, 8, 3, groups=8), (9, 72)), (nn.ConvTranspose2d(3, 8, 5), (75, 200)),
        (nn.Conv1d(3, 8, 2), (6, 16)), (nn.Embedding(10, 4), (4, 10)), (nn.LayerNorm(4), (0, 0)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)  # fmt: skip
def test_fans_are_torchs(layer: nn.Module, expected: tuple[int, int]) -> None:
    assert fans(layer.weight, layer) == expected


def test_the_fan_in_of_a_linear_layer_is_what_its_default_initialization_divides_by() -> None:
    layer = nn.Linear(10_000, 3)

    fan_in, _ = fans(layer.weight, layer)

    assert float(layer.weight.detach().abs().max()) == pytest.approx(
        1 / math.sqrt(fan_in), rel=0.01
    )


def test_units_come_first() -> None:
    plain, transposed = nn.Conv2d(3, 8, 2), nn.ConvTranspose2d(3, 8, 2)

    assert units_first(plain.weight, plain).shape[0] == 8
    assert units_first(transposed.weight, transposed).shape[0] == 8
    assert units_first(plain.bias, plain) is plain.bias


def test_a_transformers_conv1d_stores_its_units_last() -> None:
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4))  # inputs, units

    layer = Conv1D()

    assert fans(layer.weight, layer) == (6, 4)
    assert units_first(layer.weight, layer).shape == (4, 6)


def test_a_parameter_not_materialized_yet_has_no_fans() -> None:
    facts = parameter_facts(nn.LazyLinear(3), None)

    assert facts["weight"].shape == ()
    assert (facts["weight"].fan_in, facts["weight"].fan_out) == (0, 0)


@pytest.mark.parametrize(
    ("model", "shape", "axis"),
    [
        pytest.param(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), (4, 6), 1, id="matrix"),
        pytest.param(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), (4, 3, 6), 2, id="tokens"),
        pytest.param(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), (4, 3, 2, 6), 3, id="patches"),
        pytest.param(nn.Sequential(nn.Conv1d(6, 5, 1), nn.ReLU()), (4, 6, 7), 1, id="conv1d"),
        pytest.param(nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5), nn.ReLU()), (4, 6, 7, 7),
                     1, id="conv2d"),
        pytest.param(nn.Sequential(nn.Conv2d(6, 5, 7), nn.Flatten(), nn.ReLU()), (4, 6, 7, 7), 1,
                     id="flattened"),
    ],
)  # fmt: skip
def test_units_are_counted_by_the_axis_of_the_layer_in_front(
    model: nn.Module, shape: tuple[int, ...], axis: int
) -> None:
    graph = observed(model, lambda m: m(torch.randn(shape)).sum()).graph
    (relu,) = graph.of_kind("relu")

    assert unit_axis(graph, relu) == axis


def test_units_of_a_residual_sum_of_convolutions_are_channels() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return (y + self.b(y)).relu()

    graph = observed(Block(), lambda m: m(torch.randn(2, 3, 4, 4)).sum()).graph
    (relu,) = graph.of_kind("relu")

    assert unit_axis(graph, relu) == 1


def test_an_optimizer_is_its_groups_numbers() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 1e-4}],
        lr=torch.tensor(1e-3),
    )

    facts = optimizer_facts(optimizer, model)

    assert facts.kind == "AdamW"
    assert facts.learning_rates == pytest.approx((1e-3, 1e-4))
    assert [group["parameters"] for group in facts.groups] == [2, 2]
    assert facts.groups[0]["weight_decay"] == 0.01
    assert facts.foreign == 0
    assert facts.duplicates == ()
    assert not facts.has_state
    assert not facts.probe


def test_an_optimizer_of_another_model_holds_foreign_parameters() -> None:
    facts = optimizer_facts(torch.optim.SGD(mlp().parameters(), lr=0.1), mlp())

    assert facts.foreign == 6


def test_one_tensor_in_two_groups_is_a_duplicate() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [model[0].weight]})

    assert optimizer_facts(optimizer, model).duplicates == ("0.weight",)


def test_an_optimizer_that_stepped_has_state() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 6)).sum().backward()
    optimizer.step()

    assert optimizer_facts(optimizer, model).has_state
