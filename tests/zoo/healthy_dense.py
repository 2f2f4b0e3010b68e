"""Healthy trainings of multilayer perceptrons: tables, depths, activations, initializations."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from sklearn.datasets import make_regression
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.recipes import Zoo, adam, adamw, curve, rows, sgd

zoo = Zoo()
CE = nn.CrossEntropyLoss()


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU, **options: Any) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), act(**options)]
    return nn.Sequential(*layers[:-1])


@zoo
def logistic_regression() -> Any:
    return {
        "model": lambda: nn.Linear(64, 10),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": sgd(0.1),
    }


@zoo
def linear_regression_diabetes() -> Any:
    return {
        "model": lambda: nn.Linear(10, 1),
        "batch": rows("diabetes"),
        "loss_fn": lambda out, y: F.mse_loss(out.squeeze(1), y),
        "optimizer": sgd(0.01),
    }


@zoo
def two_layers_digits() -> Any:
    return {
        "model": lambda: mlp(64, 128, 10),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def three_layers_functional_digits() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(64, 128)
            self.fc2 = nn.Linear(128, 64)
            self.fc3 = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.fc1(x))
            x = F.dropout(F.relu(self.fc2(x)), 0.5, self.training)
            return F.log_softmax(self.fc3(x), dim=1)

    return {
        "model": Net,
        "batch": rows("digits", 64),
        "loss_fn": F.nll_loss,
        "optimizer": sgd(0.1, 0.9),
    }


@zoo
def iris_tanh() -> Any:
    return {
        "model": lambda: mlp(4, 16, 3, act=nn.Tanh),
        "batch": rows("iris", 16),
        "loss_fn": CE,
        "optimizer": adam(1e-2),
    }


@zoo
def wine_two_hidden_layers() -> Any:
    return {
        "model": lambda: mlp(13, 32, 32, 3),
        "batch": rows("wine", 24),
        "loss_fn": CE,
        "optimizer": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    }


@zoo
def breast_cancer_one_logit() -> Any:
    return {
        "model": lambda: nn.Sequential(mlp(30, 32, 16, 1), nn.Flatten(0)),
        "batch": rows("breast_cancer"),
        "loss_fn": lambda out, y: F.binary_cross_entropy_with_logits(out, y.float()),
        "optimizer": adam(3e-3),
    }


@zoo
def breast_cancer_sigmoid_and_bce() -> Any:
    return {
        "model": lambda: nn.Sequential(mlp(30, 32, 1), nn.Sigmoid(), nn.Flatten(0)),
        "batch": rows("breast_cancer"),
        "loss_fn": lambda out, y: F.binary_cross_entropy(out, y.float()),
        "optimizer": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    }


@zoo
def diabetes_mlp() -> Any:
    return {
        "model": lambda: nn.Sequential(mlp(10, 32, 32, 1), nn.Flatten(0)),
        "batch": rows("diabetes"),
        "loss_fn": nn.MSELoss(),
        "optimizer": adamw(),
    }


@zoo
def full_batch_lbfgs() -> Any:
    return {
        "model": lambda: mlp(1, 16, 1, act=nn.Tanh),
        "batch": curve(),
        "loss_fn": nn.MSELoss(),
        "optimizer": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=5),
    }


@zoo(
    allowed={"GL101": "torch's default initialization shrinks the signal over 10 layers: true"},
)
def ten_relu_layers_default_init_adam() -> Any:
    return {
        "model": lambda: mlp(64, *[64] * 9, 10),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def six_tanh_layers_default_init() -> Any:
    return {
        "model": lambda: mlp(64, *[64] * 5, 10, act=nn.Tanh),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def four_sigmoid_layers() -> Any:
    return {
        "model": lambda: mlp(64, 64, 64, 64, 10, act=nn.Sigmoid),
        "batch": rows("digits", 64),
        "loss_fn": CE,
        "optimizer": adam(1e-2),
    }


def he(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


@zoo(slow=True)
def twenty_relu_layers_he_init() -> Any:
    return {
        "model": lambda: mlp(64, *[100] * 19, 10).apply(he),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(3e-4),
    }


@zoo
def ten_tanh_layers_xavier_init() -> Any:
    def model() -> nn.Module:
        net = mlp(64, *[64] * 9, 10, act=nn.Tanh)
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain("tanh"))
                nn.init.zeros_(layer.bias)
        return net

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam(3e-4)}


class PreNormBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.relu(self.fc1(self.norm(x))))


@zoo(slow=True)
def fifty_layers_residual() -> Any:
    def model() -> nn.Module:
        blocks = [PreNormBlock(32) for _ in range(25)]
        return nn.Sequential(nn.Linear(64, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 10))

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


@zoo
def selu_lecun() -> Any:
    def model() -> nn.Module:
        net = mlp(13, *[32] * 8, 3, act=nn.SELU)
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                nn.init.zeros_(layer.bias)
        return net

    return {"model": model, "batch": rows("wine"), "loss_fn": CE, "optimizer": adam()}


@zoo
def mish_swish_elu() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Linear(30, 32), nn.Mish(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32), nn.ELU(),
            nn.Linear(32, 2),
        )  # fmt: skip

    return {
        "model": model,
        "batch": rows("breast_cancer"),
        "loss_fn": CE,
        "optimizer": lambda p: torch.optim.NAdam(p, lr=2e-3),
    }


class Highway(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -2.0)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for gate, layer in zip(self.gates, self.layers, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * F.relu(layer(x)) + (1 - t) * x
        return self.head(x)


@zoo
def highway() -> Any:
    return {
        "model": lambda: Highway(64, 5),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


class ReZero(nn.Module):
    def __init__(self, width: int = 64, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.alphas = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer, alpha in zip(self.layers, self.alphas, strict=True):
            x = x + alpha * F.relu(layer(x))
        return self.head(x)


@zoo
def rezero() -> Any:
    return {"model": ReZero, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


class FixupBlock(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.bias1a = nn.Parameter(torch.zeros(1))
        self.bias1b = nn.Parameter(torch.zeros(1))
        self.bias2a = nn.Parameter(torch.zeros(1))
        self.bias2b = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))
        self.fc1 = nn.Linear(width, width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.fc1.weight, std=math.sqrt(2 / width) * depth**-0.5)
        nn.init.zeros_(self.fc2.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.fc1(x + self.bias1a) + self.bias1b)
        out = self.fc2(out + self.bias2a) * self.scale + self.bias2b
        return F.relu(x + out)


@zoo(slow=True)
def fixup() -> Any:
    def model() -> nn.Module:
        head = nn.Linear(64, 10)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        stem = nn.Linear(64, 64)
        return nn.Sequential(stem, nn.ReLU(), *[FixupBlock(64, 6) for _ in range(6)], head)

    return {
        "model": model,
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": sgd(0.05, 0.9),
    }


class Sine(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, first: bool = False, omega: float = 30) -> None:
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(fan_in, fan_out)
        bound = 1 / fan_in if first else math.sqrt(6 / fan_in) / omega
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * self.linear(x))


@zoo
def siren() -> Any:
    def model() -> nn.Module:
        head = nn.Linear(64, 1)
        bound = math.sqrt(6 / 64) / 30
        nn.init.uniform_(head.weight, -bound, bound)
        return nn.Sequential(Sine(2, 64, first=True), Sine(64, 64), Sine(64, 64), head)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.rand(128, 2) * 2 - 1
        return x, torch.sin(6 * x[:, :1]) * torch.cos(4 * x[:, 1:])

    return {"model": model, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-4)}


class Nerf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(3 + 3 * 2 * 6, 64, 64, 64)
        self.density = nn.Linear(64, 1)
        self.color = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        waves = [f(2.0**k * math.pi * x) for k in range(6) for f in (torch.sin, torch.cos)]
        hidden = F.relu(self.body(torch.cat([x, *waves], dim=-1)))
        opacity = 1 - torch.exp(-F.softplus(self.density(hidden)))
        return self.color(hidden) * opacity


@zoo
def nerf_positional_encoding() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = torch.rand(256, 3) * 2 - 1
        return x, torch.sigmoid(torch.sin(4 * x) * 2)

    return {"model": Nerf, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-3)}


class KanLayer(nn.Module):
    """Learned univariate functions: radial basis functions on a grid plus a SiLU base."""

    def __init__(self, fan_in: int, fan_out: int, grid: int = 8) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-2, 2, grid))
        self.base = nn.Linear(fan_in, fan_out)
        self.norm = nn.LayerNorm(fan_in)
        self.spline = nn.Linear(fan_in * grid, fan_out, bias=False)
        nn.init.trunc_normal_(self.spline.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        basis = torch.exp(-(((self.norm(x)[..., None] - self.grid) / 0.57) ** 2))
        return self.spline(basis.flatten(-2)) + self.base(F.silu(x))


@zoo
def kan() -> Any:
    return {
        "model": lambda: nn.Sequential(KanLayer(13, 16), KanLayer(16, 3)),
        "batch": rows("wine"),
        "loss_fn": CE,
        "optimizer": adamw(1e-2),
    }


class GhostNorm(nn.Module):
    def __init__(self, width: int, virtual: int = 16) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.virtual = virtual

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.bn(part) for part in x.split(self.virtual)])


class TabNet(nn.Module):
    """Sequential attention over features, a shared layer called at every decision step.

    Each step has statistics of its own: with one BatchNorm for all of them the loss in
    evaluation is five times that in training.
    """

    def __init__(self, features: int, width: int, steps: int, outputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(features)
        self.shared = nn.Linear(features, 4 * width, bias=False)
        self.norms = nn.ModuleList(GhostNorm(4 * width, 64) for _ in range(steps + 1))
        self.attention = nn.ModuleList(nn.Linear(width, features, bias=False) for _ in range(steps))
        self.steps = nn.ModuleList(nn.Linear(2 * width, 4 * width) for _ in range(steps))
        self.head = nn.Linear(width, outputs)
        self.width = width

    def transform(self, x: Tensor, norm: nn.Module, step: nn.Module) -> Tensor:
        hidden = F.glu(norm(self.shared(x)))
        return (hidden + F.glu(step(hidden))) * math.sqrt(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        prior = torch.ones_like(x)
        attended = self.transform(x, self.norms[0], self.steps[0])[:, self.width :]
        total = x.new_zeros(len(x), self.width)
        for attention, norm, step in zip(self.attention, self.norms[1:], self.steps, strict=True):
            mask = torch.softmax(attention(attended) * prior, dim=-1)
            prior = prior * (1.5 - mask)
            decided, attended = self.transform(mask * x, norm, step).split(self.width, dim=1)
            total = total + F.relu(decided)
        return self.head(total)


@zoo(slow=True)
def tabnet_like() -> Any:
    return {
        "model": lambda: TabNet(30, 8, 3, 2),
        "batch": rows("breast_cancer", 64),
        "loss_fn": CE,
        "optimizer": adam(2e-2),
    }


@zoo
def entity_embeddings_with_numbers() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.ModuleList([nn.Embedding(7, 4), nn.Embedding(12, 6)])
            self.bn = nn.BatchNorm1d(5)
            self.layers = nn.Sequential(
                nn.Linear(15, 64), nn.ReLU(inplace=True), nn.BatchNorm1d(64), nn.Dropout(0.1),
                nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Linear(32, 1),
            )  # fmt: skip

        def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
            embedded = [e(categories[:, i]) for i, e in enumerate(self.embed)]
            return self.layers(torch.cat([*embedded, self.bn(numbers)], dim=1)).squeeze(1)

    def batch() -> Any:
        categories = torch.stack([torch.randint(7, (64,)), torch.randint(12, (64,))], dim=1)
        numbers = torch.randn(64, 5)
        y = numbers[:, 0] + (categories[:, 0] > 3).float() - 0.5 + 0.1 * torch.randn(64)
        return (categories, numbers), y

    return {"model": Net, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-2)}


@zoo
def wide_regression_huber() -> Any:
    x, y = (
        torch.tensor(a, dtype=torch.float32)
        for a in make_regression(512, 20, noise=5.0, random_state=0)
    )
    y = (y - y.mean()) / y.std()

    def batch() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x), (32,))
        return x[chosen], y[chosen, None]

    return {
        "model": lambda: mlp(20, 64, 64, 1),
        "batch": batch,
        "loss_fn": nn.HuberLoss(),
        "optimizer": adam(),
    }


@zoo
def synthesized_mlp() -> Any:
    return {"model": lambda: mlp(20, 64, 64, 5)}


@zoo
def synthesized_regressor() -> Any:
    return {"model": lambda: mlp(8, 32, 1, act=nn.Tanh)}


@zoo
def bf16_mlp() -> Any:
    return {
        "model": lambda: mlp(64, 128, 128, 10, act=nn.GELU),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adamw(),
        "precision": "bf16",
    }
