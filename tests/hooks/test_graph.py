"""What the graph says of models as people write them: kinds, parameters, addresses, sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from gradlint.engine import Observer
from gradlint.hooks.lines import with_lines
from tests.observing import kinds, observe, observed, only

HERE = Path(__file__).name


def squared(model: nn.Module) -> Tensor:
    return model(torch.randn(4, 6)).square().mean()


class Between(nn.Module):
    """Linear, a function, Linear."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 6) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(width, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.function(self.fc1(x)))


def parameters(model: nn.Module, kind: str = "linear") -> list[set[str]]:
    return [set(op.parameters) for op in observed(model, squared).graph.of_kind(kind)]


# -- activations, however they are called ---------------------------------------------


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        (F.relu, "relu"), (torch.relu, "relu"), (F.relu_, "relu"), (F.relu6, "relu6"),
        (lambda x: x.clamp(min=0), "relu"), (lambda x: F.threshold(x, 0.0, 0.0), "relu"),
        (lambda x: F.leaky_relu(x, 0.1), "leaky_relu"), (F.elu, "elu"), (F.selu, "selu"),
        (F.celu, "celu"), (F.gelu, "gelu"), (F.silu, "silu"), (F.mish, "mish"),
        (F.softplus, "softplus"), (F.hardswish, "hardswish"), (torch.sigmoid, "sigmoid"),
        (torch.tanh, "tanh"), (F.hardsigmoid, "hardsigmoid"), (F.hardtanh, "hardtanh"),
        (lambda x: x.clamp(-2, 2), "hardtanh"), (F.logsigmoid, "logsigmoid"),
    ],
)  # fmt: skip
def test_a_functional_activation_has_a_kind_and_the_site_of_the_layer_it_follows(
    activation: Callable[[Tensor], Tensor], kind: str
) -> None:
    observer = observed(Between(activation), squared)

    assert kinds(observer) == ["linear", kind, "linear"]
    assert only(observer, kind).site == f"fc1:{kind}"
    assert only(observer, kind).module == ""


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        (nn.ReLU(), "relu"), (nn.ReLU(inplace=True), "relu"), (nn.Sigmoid(), "sigmoid"),
        (nn.GELU(), "gelu"), (nn.PReLU(), "prelu"), (nn.SELU(), "selu"), (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(-2, 2), "hardtanh"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_activation_module_is_its_own_site(activation: nn.Module, kind: str) -> None:
    observer = observed(nn.Sequential(nn.Linear(6, 6), activation, nn.Linear(6, 2)), squared)

    assert kinds(observer) == ["linear", kind, "linear"]
    assert only(observer, kind).site == only(observer, kind).module == "1"


def test_a_function_a_module_and_an_in_place_call_give_the_same_graph() -> None:
    builds = [
        Between(F.relu), Between(F.relu_), Between(nn.ReLU()), Between(nn.ReLU(inplace=True)),
        nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)),
    ]  # fmt: skip

    shapes = [
        [(op.kind, op.inputs, op.shape, op.in_loss) for op in observed(model, squared).graph]
        for model in builds
    ]

    assert all(shape == shapes[0] for shape in shapes)


def test_a_glu_module_halves_and_is_no_gate_of_another() -> None:
    observer = observed(nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 2)), squared)

    assert kinds(observer) == ["linear", "glu", "linear"]
    assert only(observer, "glu").shape == (4, 4)


def test_two_activations_behind_one_layer_have_two_sites() -> None:
    model = Between(lambda x: torch.cat([F.relu(x), F.relu(-x)], dim=1), width=12)

    sites = [op.site for op in observed(model, squared).graph.of_kind("relu")]

    assert sites == ["fc1:relu", "fc1:relu#2"]


def test_one_activation_module_behind_several_layers_is_several_sites() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.fc1, self.fc2, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.fc2(self.act(self.fc1(x)))))

    found = observed(Shared(), squared).graph.of_kind("relu")

    assert [(op.site, op.module, op.call) for op in found] == [
        ("fc1:relu", "act", 0), ("fc2:relu", "act", 1),
    ]  # fmt: skip


def test_one_activation_module_behind_one_layer_over_time_is_one_site() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(6, 6), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.act(self.fc(x))
            return x

    found = observed(Loop(), squared).graph.of_kind("tanh")

    assert [(op.site, op.call) for op in found] == [("act", 0), ("act", 1), ("act", 2)]


# -- weight layers and their parameters -----------------------------------------------


def test_sequential_and_subclass_name_the_same_parameters() -> None:
    assert parameters(Between(F.relu)) == [{"fc1.weight", "fc1.bias"}, {"fc2.weight", "fc2.bias"}]
    assert parameters(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))) == [
        {"0.weight", "0.bias"}, {"2.weight", "2.bias"},
    ]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(lambda: torch.randn(4, 6), id="matrix"),
        pytest.param(lambda: torch.randn(4, 5, 6), id="sequence"),
        pytest.param(lambda: torch.randn(5, 4, 6).transpose(0, 1), id="strided"),
        pytest.param(lambda: torch.randn(2, 3, 4, 6), id="four-axes"),
        pytest.param(lambda: torch.randn(6), id="one-sample"),
    ],
)
def test_a_linear_layer_is_one_operation_whatever_its_input(
    inputs: Callable[[], Tensor], bias: bool
) -> None:
    model = nn.Sequential(nn.Linear(6, 5, bias=bias), nn.Tanh())

    observer = observed(model, lambda m: m(inputs()).square().mean())

    linear = only(observer, "linear")
    assert set(linear.parameters) == {"0.weight", "0.bias"} - ({"0.bias"} if not bias else set())
    assert linear.module == linear.site == "0"
    assert linear.missing >= 1  # the data
    assert not observer.graph.of_kind("matmul", "addmm")


@pytest.mark.parametrize("frozen", [("fc2.weight",), ("fc2.bias",), ("fc2.weight", "fc2.bias")])
def test_frozen_weights_are_found_through_their_module(frozen: tuple[str, ...]) -> None:
    model = Between(F.relu)
    for path in frozen:
        model.get_parameter(path).requires_grad_(False)

    assert parameters(model)[1] == {"fc2.weight", "fc2.bias"}


def test_a_first_layer_with_a_frozen_weight_still_has_it() -> None:
    model = Between(F.relu)
    model.fc1.weight.requires_grad_(False)

    assert parameters(model)[0] == {"fc1.weight", "fc1.bias"}


@pytest.mark.parametrize(
    ("layer", "shape", "kind"),
    [
        (nn.Conv1d(3, 4, 3), (2, 3, 8), "conv"),
        (nn.Conv2d(3, 4, 3, bias=False), (2, 3, 8, 8), "conv"),
        (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8), "conv"),
        (nn.Conv3d(3, 4, 3), (2, 3, 8, 8, 8), "conv"),
        (nn.ConvTranspose2d(3, 4, 3), (2, 3, 8, 8), "conv_transpose"),
        (nn.RNN(6, 4), (3, 2, 6), "rnn"),
        (nn.LSTM(6, 4), (3, 2, 6), "rnn"),
        (nn.GRU(6, 4), (3, 2, 6), "rnn"),
        (nn.Bilinear(6, 6, 2), (4, 6), "bilinear"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_every_weight_layer_has_a_kind_and_its_parameters(
    layer: nn.Module, shape: tuple[int, ...], kind: str
) -> None:
    def loss(model: nn.Module) -> Tensor:
        x = torch.randn(shape)
        output = model[0](x, x) if kind == "bilinear" else model(x)
        return (output[0] if isinstance(output, tuple) else output).square().mean()

    observer = observed(nn.Sequential(layer), loss)

    layers = [op for op in observer.graph if op.kind in (kind, "linear", "matmul")]
    known = {path for op in observer.graph for path in op.parameters}
    assert kind in {op.kind for op in layers} or kind in ("rnn", "bilinear")
    assert known == {f"0.{name}" for name, _ in layer.named_parameters()}


def test_a_low_rank_update_added_to_a_frozen_weight_is_one_layer() -> None:
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 6), requires_grad=False)
            self.a, self.b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight + self.b @ self.a)

    observer = observed(nn.Sequential(Merged(), nn.ReLU(), nn.Linear(5, 2)), squared)

    assert kinds(observer) == ["linear", "relu", "linear"]
    assert set(observer.graph.by_id[0].parameters) == {"0.a", "0.b"}


def test_an_adapter_beside_a_frozen_layer_is_two_layers_and_a_sum() -> None:
    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(6, 6).requires_grad_(False)
            self.a, self.b = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.b(self.a(x))

    observer = observed(nn.Sequential(nn.Linear(6, 6), Adapter(), nn.ReLU()), squared)

    assert kinds(observer) == ["linear", "linear", "linear", "linear", "add", "relu"]
    assert [op.module for op in observer.graph.of_kind("linear")] == ["0", "1.base", "1.a", "1.b"]
    assert set(observer.graph.by_id[1].parameters) == {"1.base.weight", "1.base.bias"}


@pytest.mark.parametrize(
    ("parametrized", "own"),
    [
        pytest.param(
            lambda: parametrizations.weight_norm(nn.Linear(6, 5)),
            {
                "0.bias",
                "0.parametrizations.weight.original0",
                "0.parametrizations.weight.original1",
            },
            id="weight-norm",
        ),
        pytest.param(
            lambda: parametrizations.spectral_norm(nn.Linear(6, 5)),
            {"0.bias", "0.parametrizations.weight.original"},
            id="spectral-norm",
        ),
        pytest.param(
            lambda: parametrizations.orthogonal(nn.Linear(6, 5)),
            {"0.bias", "0.parametrizations.weight.original"},
            id="orthogonal",
        ),
        pytest.param(
            lambda: nn.utils.spectral_norm(nn.Linear(6, 5)),
            {"0.bias", "0.weight_orig"},
            id="spectral-norm-by-hook",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*deprecated.*:FutureWarning")
def test_a_parametrized_weight_is_its_parameters_and_no_operations(
    parametrized: Callable[[], nn.Module], own: set[str]
) -> None:
    observer = observed(nn.Sequential(parametrized(), nn.Tanh(), nn.Linear(5, 2)), squared)

    assert kinds(observer) == ["linear", "tanh", "linear"]
    assert set(observer.graph.by_id[0].parameters) == own


def test_a_vector_of_weights_times_a_matrix_of_data_is_a_linear_layer() -> None:
    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w

    assert parameters(Vector()) == [{"w"}]


def test_a_tied_weight_is_known_by_its_first_path_at_both_uses() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x))

    observer = observed(Tied(), lambda m: m(torch.arange(4)).square().mean())

    assert [op.kind for op in observer.graph.reading("embed.weight")] == ["embedding", "linear"]


# -- attention, softmax, gates --------------------------------------------------------


@pytest.mark.parametrize("weights", [True, False], ids=["by-hand", "fused"])
def test_multi_head_attention_has_its_projections_and_its_inside(weights: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=weights)[0]

    observer = observed(Attention(), lambda m: m(torch.randn(4, 5, 6)).square().mean())

    ends = {"attention.in_proj_weight", "attention.out_proj.weight"}
    linears = observer.graph.of_kind("linear")
    assert [ends.intersection(op.parameters) for op in linears] == [
        {"attention.in_proj_weight"}, {"attention.out_proj.weight"},
    ]  # fmt: skip
    if weights:
        assert only(observer, "softmax").attributes == {"dim": 2, "gate": True}
        assert len(observer.graph.of_kind("matmul")) == 2
    else:
        assert len(only(observer, "attention").inputs) == 3


@pytest.mark.parametrize("dim", [-1, 1])
def test_the_axis_of_a_softmax_is_not_negative(dim: int) -> None:
    observer = observed(Between(lambda x: torch.softmax(x, dim)), squared)

    assert only(observer, "softmax").attributes["dim"] == 1


def test_the_axis_of_a_log_softmax_and_a_glu_is_not_negative() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.GLU(), nn.LogSoftmax(dim=-2))

    observer = observed(model, squared)

    assert only(observer, "log_softmax").attributes["dim"] == 0
    assert only(observer, "glu").attributes["dim"] == 1


def test_an_activation_that_only_multiplies_is_a_gate() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.value(x) * torch.sigmoid(self.gate(x)))

    observer = observed(Gated(), squared)

    assert only(observer, "sigmoid").attributes.get("gate") is True
    assert only(observer, "sigmoid").site == "gate:sigmoid"
    assert "gate" not in only(observer, "tanh").attributes


# -- sums, scales, shapes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x + x.tanh(), "add"), (lambda x: x + 1, "shift"), (lambda x: x - 1, "shift"),
        (lambda x: x - x.tanh(), "sub"), (lambda x: 3 * x, "scale"), (lambda x: x / 3, "scale"),
        (lambda x: x * x.tanh(), "mul"), (lambda x: x * x, "pow"), (lambda x: x**2, "pow"),
        (lambda x: x * torch.ones_like(x), "mask"), (lambda x: x @ x.T @ x, "matmul"),
        (lambda x: x.view(6, 4).view(4, 6), "view"), (lambda x: x.exp(), "exp"),
        (lambda x: x.abs(), "abs"), (lambda x: x.masked_fill(x > 0, 0.0), "mask"),
        (lambda x: F.dropout(x), "mask"), (lambda x: torch.cat([x, x], 1)[:, :6], "concat"),
        (lambda x: F.layer_norm(x, (6,)), "layer_norm"),
        (lambda x: F.rms_norm(x, (6,)), "rms_norm"),
        (lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt(), "rms_norm"),
    ],
)  # fmt: skip
def test_what_is_done_to_a_signal_has_a_kind(
    function: Callable[[Tensor], Tensor], kind: str
) -> None:
    assert kind in kinds(observed(Between(function), squared))


def test_a_scale_keeps_its_number() -> None:
    observer = observed(Between(lambda x: x * 0.125), squared)

    assert only(observer, "scale").attributes["scalar"] == 0.125


def test_learned_biases_and_scales_are_no_signals() -> None:
    class Affine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.shift, self.scale = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return (self.fc(x) + self.shift) * self.scale.exp()

    observer = observed(Affine(), squared)

    assert kinds(observer) == ["linear", "parameter_add", "parameter_mul"]
    assert only(observer, "parameter_mul").parameters == ("scale",)


def test_an_addition_of_unlike_shapes_says_so() -> None:
    model = Between(lambda x: x + x.mean(dim=1, keepdim=True))

    assert only(observed(model, squared), "add").attributes["broadcast"] is True
    assert (
        "broadcast"
        not in only(observed(Between(lambda x: x + x.tanh()), squared), "add").attributes
    )


def test_a_convolution_block_reads_as_it_is_written() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip

    observer = observed(model, lambda m: m(torch.randn(2, 3, 8, 8)).square().mean())

    assert kinds(observer) == [
        "conv", "batch_norm", "relu", "max_pool", "mask", "mean", "view", "linear",
    ]  # fmt: skip
    assert only(observer, "batch_norm").attributes["training"] is True
    assert only(observer, "batch_norm").attributes["eps"] == pytest.approx(1e-5)


def test_inputs_are_earlier_operations() -> None:
    for op in observed(Between(lambda x: x + x.tanh()), squared).graph:
        assert all(i < op.id for i in op.inputs)


# -- the loss's side ------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 0, 1])


def sides(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> tuple[list[str], list[str]]:
    observer = observed(model, loss)
    return kinds(observer), kinds(observer, in_loss=True)


def test_cross_entropy_is_a_log_softmax_and_an_nll_on_the_loss_side() -> None:
    model, loss = sides(Between(F.relu), lambda m: F.cross_entropy(m(torch.randn(4, 6)), LABELS))

    assert model == ["linear", "relu", "linear"]
    assert loss == ["log_softmax", "nll"]


def test_a_softmax_in_front_of_cross_entropy_is_the_models() -> None:
    model, loss = sides(
        nn.Sequential(nn.Linear(6, 2), nn.Softmax(dim=-1)),
        lambda m: F.cross_entropy(m(torch.randn(4, 6)), LABELS),
    )

    assert model == ["linear", "softmax"]
    assert loss == ["log_softmax", "nll"]


def test_a_loss_written_by_hand_is_the_losss() -> None:
    model, loss = sides(
        Between(F.relu), lambda m: ((m(torch.randn(4, 6)) - torch.ones(4, 2)) ** 2).mean()
    )

    assert model == ["linear", "relu", "linear"]
    assert loss == ["shift", "pow", "mean"]


class OwnLoss(nn.Module):
    """Returns its loss, as a `function` of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 2)
        self.function = function

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.function(self.fc2(self.fc1(x).relu()))}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(
            lambda out: F.cross_entropy(out, LABELS), ["log_softmax", "nll"], id="cross-entropy"
        ),
        pytest.param(lambda out: F.mse_loss(out, torch.ones(4, 2)), ["mse"], id="mse"),
        pytest.param(
            lambda out: ((out - 1) ** 2).mean(), ["shift", "pow", "mean"], id="mse-by-hand"
        ),
        pytest.param(
            lambda out: 0.5 * (out - 1).abs().sum() / 4,
            ["shift", "abs", "sum", "scale", "scale"],
            id="l1-by-hand",
        ),
        pytest.param(
            lambda out: F.mse_loss(out, torch.ones(4, 2)) + 0.1 * out.square().mean(),
            ["mse", "pow", "mean", "scale", "add"],
            id="with-a-penalty",
        ),
    ],
)
def test_a_loss_the_model_returns_is_the_losss(
    function: Callable[[Tensor], Tensor], expected: list[str]
) -> None:
    model, loss = sides(OwnLoss(function), lambda m: m(torch.randn(4, 6))["loss"])

    assert model == ["linear", "relu", "linear"]
    assert loss == expected


def test_what_stands_between_two_modules_of_a_training_step_is_the_models() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def training_step(model: nn.Module) -> Tensor:
        x = torch.randn(4, 6)
        mean, log_std = model.encoder(x).chunk(2, dim=-1)
        code = mean + torch.randn_like(mean) * log_std.exp()
        return F.mse_loss(model.decoder(code), x)

    observer = observed(Autoencoder(), training_step)

    assert kinds(observer) == ["linear", "split", "exp", "mask", "add", "linear"]
    assert kinds(observer, in_loss=True) == ["mse"]
    assert [flow.site.path for flow in observer.flows] == ["encoder", "decoder"]


def test_the_last_scale_of_a_model_is_its_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).squeeze(1) * 3

    model, loss = sides(Scaled(), lambda m: F.mse_loss(m(torch.randn(4, 6)), torch.ones(4)))

    assert model == ["linear", "squeeze", "scale"]
    assert loss == ["mse"]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_keeps_its_reduction_and_its_ignored_label(reduction: str) -> None:
    model = nn.Linear(6, 2)

    observer = observed(
        model,
        lambda m: F.cross_entropy(
            m(torch.randn(4, 6)), LABELS, reduction=reduction, ignore_index=-7
        ),
    )

    assert only(observer, "nll").attributes == {"reduction": reduction, "ignore_index": -7}


def test_a_branch_cut_by_detach_is_not_in_the_graph() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))

    observer = observed(model, lambda m: m[2](m[1](m[0](torch.randn(4, 6))).detach()).mean())

    assert kinds(observer) == ["linear"]
    assert only(observer, "linear").parameters == ("2.weight", "2.bias")


def test_a_custom_function_is_custom() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return 2 * gradient

    observer = observed(Between(Twice.apply), squared)

    assert kinds(observer) == ["linear", "custom", "linear"]
    assert only(observer, "custom").name == "TwiceBackward"


# -- the user's lines -----------------------------------------------------------------


def line_of(text: str) -> int:
    (found,) = [
        number
        for number, line in enumerate(Path(__file__).read_text().splitlines(), start=1)
        if text in line and "line_of" not in line
    ]
    return found


def test_an_operation_knows_the_users_line_that_called_it() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)  # here the layer
            return torch.sigmoid(y)  # here the activation

    model = Written()
    with Observer(model) as observer, observer.step(0), with_lines():
        loss = model(torch.randn(4, 6)).mean()  # here the mean
        observer.forward_done(loss)

    found = {op.kind: op.source for op in observer.graph}
    assert all(s is not None and s.file.endswith(HERE) for s in found.values())
    assert found["linear"].line == line_of("# here the layer")
    assert found["sigmoid"].line == line_of("# here the activation")
    assert found["mean"].line == line_of("# here the mean")


def test_without_lines_no_source_is_made_up() -> None:
    observer = observed(nn.Linear(6, 2), squared)

    assert all(op.source is None for op in observer.graph)
    assert not torch.is_anomaly_enabled()


def test_lines_leave_anomaly_detection_as_it_was() -> None:
    with with_lines():
        assert torch.is_anomaly_enabled()
        assert not torch.is_anomaly_check_nan_enabled()

    assert not torch.is_anomaly_enabled()


# -- structure over steps -------------------------------------------------------------


def test_the_graph_of_the_first_step_is_kept_and_the_latest_is_beside_it() -> None:
    class Deepening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.calls = nn.Linear(6, 6), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            for _ in range(self.calls):
                x = self.fc(x)
            return x

    with Observer(Deepening()) as observer:
        observe(observer, squared)
        observe(observer, squared, step=1)

    assert kinds(observer) == ["linear"]
    assert [op.kind for op in observer.graph_of_step if not op.in_loss] == ["linear", "linear"]
    assert [op.call for op in observer.graph_of_step if not op.in_loss] == [0, 1]


def test_a_deep_recurrence_is_walked_without_recursion() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.999))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3000):
                x = x * self.w
            return x

    observer = observed(Deep(), lambda m: m(torch.ones(2)).sum())

    # The first product has data alone and the parameter: it is one, too, that of a batch of 2.
    assert 2999 <= len(observer.graph.of_kind("parameter_mul")) <= 3000
    assert math.isclose(float(observer.model.w.grad), 2 * 3000 * 0.999**2999, rel_tol=1e-3)
