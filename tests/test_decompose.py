"""The chain rule taken apart, against autograd's own gradients and the documents' numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.decompose import Edge, blamed, by_layer, decompose, factor_of, total
from gradlint.engine import Observer
from gradlint.graph import Graph, Operation
from gradlint.testing import chain
from tests.observing import (
    FAMILIES,
    GPT,
    Loss,
    Residual,
    cross_entropy,
    kept_outputs,
    observe,
    observed,
    sigmoid_chain,
    small_cnn,
    value,
)

EXACT = 1e-6
"""Decades telescope in float64; a norm of a float32 gradient is exact to 1e-12 of itself."""


def assert_exact(model: nn.Module, loss: Loss) -> Observer:
    """Decades sum to the norm they explain, their layers to what the model is blamed for."""
    with kept_outputs(model) as kept, Observer(model) as observer:
        observe(observer, loss)
    gains, graph = observer.last_gains, observer.graph_of_step
    start = gains.norms[len(graph) - 1]
    assert start == 1.0
    assert observer.flows
    for flow in observer.flows:
        assert flow.total == pytest.approx(math.log10(flow.norm / start), abs=EXACT)
        assert flow.output_norm == start
        assert kept[flow.site.path] is not None
    every = decompose(graph, gains.norms, gains.edges)
    for identity, decades in every.items():
        layers = by_layer(graph, gains.norms, gains.edges, identity)
        assert total(decades) == pytest.approx(math.log10(gains.norms[identity] / start), abs=EXACT)
        if not graph.by_id[identity].in_loss:
            assert math.fsum(layers.values()) == pytest.approx(blamed(decades), abs=EXACT)
    first = observer.flows[0]
    assert math.fsum(first.layers.values()) == pytest.approx(first.blamed, abs=EXACT)
    return observer


# -- exactness ------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU,
    "elu": nn.ELU, "leaky": nn.LeakyReLU, "none": nn.Identity,
}  # fmt: skip


@given(
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    names=st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=6, max_size=6),
    batch=st.integers(1, 8),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_decades_of_any_chain_sum_to_its_decay(
    widths: list[int], names: list[str], batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    sides = [4, *widths]
    for inner, outer, name in zip(sides, sides[1:], names, strict=False):
        layers += [nn.Linear(inner, outer), ACTIVATIONS[name]()]
    model = nn.Sequential(*layers, nn.Linear(sides[-1], 2))
    x = torch.randn(batch, 4)

    with Observer(model) as observer:
        observe(observer, lambda m: (m(x) - 1).square().mean())

    for flow in observer.flows:  # a chain of dead rectifiers has none
        assert flow.total == pytest.approx(math.log10(flow.norm), abs=EXACT)
    if observer.flows and observer.flows[0].site.path == "0":
        first = observer.flows[0]
        assert math.fsum(first.layers.values()) == pytest.approx(first.blamed, abs=EXACT)


@given(depth=st.integers(1, 5), normalized=st.booleans(), scale=st.sampled_from([1e-3, 1.0, 30.0]))
@settings(max_examples=10)
def test_decades_of_any_residual_network_sum_to_its_decay(
    depth: int, normalized: bool, scale: float
) -> None:
    torch.manual_seed(depth)
    model = nn.Sequential(
        nn.Linear(6, 8),
        *(Residual(8, normalized=normalized) for _ in range(depth)),
        nn.Linear(8, 3),
    )
    for block in model[1:-1]:
        with torch.no_grad():
            block.fc2.weight.mul_(scale)

    observer = assert_exact(model, cross_entropy(torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])))

    assert len(observer.flows) == 2 * depth + 2


def test_decades_of_a_residual_cnn_with_batch_norm_and_pooling_sum_to_its_decay() -> None:
    model = small_cnn()

    observer = assert_exact(
        model, cross_entropy(torch.randn(8, 3, 12, 12), torch.randint(0, 5, (8,)))
    )

    first = observer.flows[0]
    assert first.site.path == "0"
    assert "normalization" not in first.decades  # each stands behind a weight
    assert first.decades["structural"] < -0.4  # nine positions share one gradient: 1/√9


def test_decades_of_a_pre_ln_transformer_sum_to_its_decay() -> None:
    model = GPT(depth=6)
    tokens = torch.randint(0, 20, (4, 8))

    observer = assert_exact(model, cross_entropy(tokens, tokens.roll(1, 1)))

    first = observer.flows[0]
    assert first.site.path == "blocks.0.qkv"
    assert {"weights", "residual", "attention", "Softmax", "GELU", "normalization"} <= {
        *first.decades
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_decades_of_every_family_sum_to_its_decay(family: str) -> None:
    build, batch = FAMILIES[family]

    assert_exact(build(), cross_entropy(*batch()))


def test_the_norm_of_a_flow_is_that_of_autograds_gradient() -> None:
    model = nn.Sequential(nn.Linear(6, 8), Residual(8, normalized=True), nn.Linear(8, 3))
    loss = cross_entropy(torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1]))
    with kept_outputs(model) as kept:
        value_of_loss = loss(model)
    layers = ["0", "1.fc1", "1.fc2", "2"]
    expected = torch.autograd.grad(value_of_loss, [kept[path] for path in layers])

    observer = observed(model, loss)

    assert [flow.site.path for flow in observer.flows] == layers
    for flow, gradient in zip(observer.flows, expected, strict=True):
        assert flow.norm == pytest.approx(float(gradient.double().norm()), rel=1e-9)
        assert value(observer, "pre_activation_grad_norm", flow.site.path) == flow.norm


# -- the documents' numbers -----------------------------------------------------------


def test_ten_sigmoid_layers_lose_six_decades_in_sigmoids_and_two_and_a_half_in_weights() -> None:
    model = sigmoid_chain()
    loss = cross_entropy(torch.randn(32, 64), torch.randint(0, 10, (32,)))
    with kept_outputs(model) as kept:
        value_of_loss = loss(model)
    outputs = [kept[str(i)] for i in range(21)]  # pre-activation, activation, … , logits
    norms = [
        math.log10(float(g.double().norm())) for g in torch.autograd.grad(value_of_loss, outputs)
    ]
    sigmoids = math.fsum(norms[i] - norms[i + 1] for i in range(0, 20, 2))
    weights = math.fsum(norms[i] - norms[i + 1] for i in range(1, 20, 2))

    first = observed(model, loss).flows[0]

    assert first.decades["Sigmoid"] == pytest.approx(sigmoids, abs=EXACT)
    assert first.decades["weights"] == pytest.approx(weights, abs=EXACT)
    assert first.decades["loss"] == pytest.approx(norms[20], abs=EXACT)
    assert set(first.decades) == {"Sigmoid", "weights", "loss"}
    assert -6.2 < sigmoids < -6.1  # 0.25 a layer is -6.02; and σ′ < 0.25 off zero
    assert -2.6 < weights < -2.3  # torch's default gain is 1/√3: -2.39 where nothing else acts
    assert first.layers["1"] == pytest.approx(norms[0] - norms[1], abs=EXACT)
    assert first.layers["20"] == pytest.approx(norms[19] - norms[20], abs=EXACT)


def test_tanh_under_unit_normal_weights_wins_in_weights_and_loses_in_saturation() -> None:
    layers = [part for _ in range(10) for part in (nn.Linear(64, 64), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in model[:20:2]:
        nn.init.normal_(layer.weight)

    first = observed(model, cross_entropy(torch.randn(32, 64), torch.randint(0, 10, (32,)))).flows[
        0
    ]

    assert first.decades["weights"] > 7
    assert first.decades["Tanh"] < -5
    assert abs(first.blamed) < 3  # a look at norms alone sees little of either


@pytest.mark.parametrize("depth", [1, 5, 10])
def test_sigmoids_at_zero_pass_a_quarter_each(depth: int) -> None:
    layers = [part for _ in range(depth) for part in (nn.Linear(1, 1), nn.Sigmoid())]
    model = nn.Sequential(*layers)
    for layer in model[::2]:
        nn.init.ones_(layer.weight)
        nn.init.constant_(layer.bias, -0.5)  # σ(0) = 0.5 enters, 0 comes out

    observer = observed(model, lambda m: m(torch.tensor([[0.5]])).sum())

    first = observer.flows[0]
    assert 10 ** first.decades["Sigmoid"] == pytest.approx(0.25**depth)
    assert first.decades.get("weights", 0.0) == pytest.approx(0.0, abs=EXACT)
    assert value(observer, "gradient_norm", "0.bias") == pytest.approx(0.25**depth)


def test_ten_factors_of_nine_tenths_leave_a_third() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            for _ in range(10):
                x = x * 0.9
            return x

    first = observed(Scaled(), lambda m: m(torch.randn(3, 4)).sum()).flows[0]

    assert 10 ** first.decades["scale"] == pytest.approx(0.349, abs=5e-4)
    assert first.blamed == pytest.approx(10 * math.log10(0.9), abs=EXACT)


def test_the_worked_example_of_two_layers() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.Sigmoid())
    with torch.no_grad():
        for parameter, number in zip(model.parameters(), (0.5, 0.2, 0.8, -0.5), strict=True):
            parameter.fill_(number)

    observer = observed(model, lambda m: (m(torch.tensor([[3.0]])) - 1).square().sum())

    # Reference [3] prints -0.212 and -0.300, its factors rounded to two digits on the way.
    assert value(observer, "gradient_norm", "2.weight") == pytest.approx(0.212, abs=0.001)
    assert value(observer, "gradient_norm", "0.weight") == pytest.approx(0.300, abs=0.002)
    assert model[2].weight.grad.item() < 0
    assert model[0].weight.grad.item() < 0
    sigmoid = 1 / (1 + math.exp(-0.86))
    error = 2 * (sigmoid - 1) * sigmoid * (1 - sigmoid)
    assert value(observer, "gradient_norm", "2.weight") == pytest.approx(abs(error * 1.7), rel=1e-6)
    assert value(observer, "gradient_norm", "0.weight") == pytest.approx(
        abs(error * 0.8 * 3), rel=1e-6
    )


# -- what is blamed -------------------------------------------------------------------


def test_a_loss_that_reads_the_output_twice_is_no_residual() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    target = torch.rand(8, 1)

    def by_hand(m: nn.Module) -> Tensor:
        p = m(torch.ones(8, 4))
        return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

    flow = assert_exact(model, by_hand).flows[0]

    assert set(flow.decades) == {"loss", "Sigmoid"}
    assert flow.blamed == pytest.approx(flow.decades["Sigmoid"])


def test_pieces_of_a_tensor_laid_side_by_side_are_structural() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return torch.stack([x[:, i].tanh() for i in range(4)], dim=1)

    flow = assert_exact(Steps(), lambda m: m(torch.randn(3, 4)).square().sum()).flows[0]

    assert set(flow.decades) == {"loss", "structural", "Tanh"}
    assert flow.decades["structural"] == pytest.approx(0.0, abs=0.2)  # four apart, four together


def test_what_a_concatenation_cuts_apart_meets_as_structure() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.grown = nn.ModuleList(nn.Linear(8 + 4 * i, 4) for i in range(6))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for layer in self.grown:
                x = torch.cat([x, layer(x).tanh()], dim=1)
            return x

    flow = assert_exact(Dense(), lambda m: m(torch.randn(5, 8)).square().sum()).flows[0]

    assert set(flow.decades) == {"loss", "structural", "weights", "Tanh"}
    assert flow.blamed == pytest.approx(0.0, abs=0.3)


def test_a_skip_is_a_residual_and_booked_where_the_gradients_meet() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Residual(8), nn.Linear(8, 2))

    flow = assert_exact(model, lambda m: m(torch.randn(5, 8)).square().sum()).flows[0]

    meeting = [path for path in flow.layers if path == "0"]
    assert meeting == ["0"]
    assert flow.layers["0"] == pytest.approx(flow.decades["residual"], abs=EXACT)


def test_a_normalization_behind_a_weight_counts_with_the_weights() -> None:
    behind = Graph(chain("linear", "layer_norm", "relu", "layer_norm", "linear"))

    assert [factor_of(behind, op) for op in behind] == [
        "weights", "weights", "ReLU", "normalization", "weights",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "factor"),
    [
        ("conv", "weights"), ("rnn", "weights"), ("parameter_mul", "weights"),
        ("gelu", "GELU"), ("sigmoid", "Sigmoid"), ("leaky_relu", "LeakyReLU"),
        ("hardswish", "Hardswish"), ("softmax", "Softmax"), ("attention", "attention"),
        ("matmul", "constant matrix"), ("add", "residual"), ("parameter_add", "residual"),
        ("scale", "scale"), ("view", "structural"), ("max_pool", "structural"),
        ("dropout", "structural"), ("exp", "other"),
    ],
)  # fmt: skip
def test_every_kind_of_operation_is_some_factor(kind: str, factor: str) -> None:
    assert factor_of(Graph(), Operation(0, kind, kind)) == factor


def test_a_product_of_two_signals_is_attention() -> None:
    assert factor_of(Graph(), Operation(2, "matmul", "matmul", inputs=(0, 1))) == "attention"


# -- edges ----------------------------------------------------------------------------


def test_an_operation_without_a_usable_gradient_is_left_out() -> None:
    graph = Graph(chain("linear", "relu", "linear", "mse"))
    edges = [Edge(3, 2, 1.0), Edge(2, 1, 0.5), Edge(1, 0, 0.0)]

    found = decompose(graph, {3: 1.0, 2: 1.0, 1: 0.5, 0: 0.0}, edges)

    assert set(found) == {3, 2, 1}
    assert found[1] == pytest.approx({"weights": math.log10(0.5)})
    assert by_layer(graph, {3: 1.0, 2: 1.0, 1: 0.5, 0: 0.0}, edges, 0) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_ends_the_walk(bad: float) -> None:
    graph = Graph(chain("linear", "relu", "linear", "mse"))
    edges = [Edge(3, 2, 1.0), Edge(2, 1, bad), Edge(1, 0, bad)]

    found = decompose(graph, {3: 1.0, 2: 1.0, 1: bad, 0: bad}, edges)

    assert set(found) == {3, 2}


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_squares_that_leave_float64_do_not_hurt(size: float) -> None:
    graph = Graph(
        (
            Operation(0, "linear", "linear"),
            Operation(1, "relu", "relu", inputs=(0,)),
            Operation(2, "add", "add", inputs=(0, 1)),
        )
    )
    edges = [Edge(2, 1, size), Edge(2, 0, size), Edge(1, 0, size)]

    found = decompose(graph, {2: size, 1: size, 0: size * 2}, edges)

    assert total(found[0]) == pytest.approx(math.log10(2))


def test_two_branches_that_cancel_are_a_loss_at_the_join() -> None:
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return F.relu(x) - 0.999 * F.relu(x)

    flow = assert_exact(Cancelling(), lambda m: m(torch.randn(6, 4)).square().sum()).flows[0]

    assert flow.decades["residual"] == pytest.approx(math.log10(0.001), abs=0.01)
