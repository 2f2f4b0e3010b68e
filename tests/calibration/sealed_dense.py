"""Sealed and healthy: tables, losses, optimizers, habits of dense networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, SequentialLR

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import rows

bench = Bench()


def friedman(size: int = 64) -> tuple[Tensor, Tensor]:
    """Friedman's first regression problem, standardized."""
    x = torch.rand(size, 10)
    y = 10 * torch.sin(math.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    y = y + 10 * x[:, 3] + 5 * x[:, 4] + torch.randn(size)
    return (x - 0.5) * math.sqrt(12), ((y - 14.4) / 4.9)[:, None]


def rings(size: int = 64) -> tuple[Tensor, Tensor]:
    """Three noisy rings, and which."""
    y = torch.randint(3, (size,))
    angle = 2 * math.pi * torch.rand(size)
    radius = 0.6 * (y + 1) + 0.1 * torch.randn(size)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y


def spirals(size: int = 64) -> tuple[Tensor, Tensor]:
    """Two spirals, targets of shape ``(N,)``."""
    y = torch.randint(2, (size,))
    t = 3 * torch.rand(size) + 0.5
    x = torch.stack([t * (t + math.pi * y).cos(), t * (t + math.pi * y).sin()], 1)
    return (x + 0.1 * torch.randn(size, 2)) / 1.7, y.float()


def stack(*sizes: int, act: Callable[[], nn.Module], norm: Any = None) -> nn.Sequential:
    """Layers of those sizes in torch's initialization, normalized before the activation."""
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(n, m))
        if i < len(sizes) - 2:
            layers += [act()] if norm is None else [norm(m), act()]
    return nn.Sequential(*layers)


def warm_cosine(warm: int = 8, total: int = 40) -> Callable[[Optimizer], Any]:
    return lambda o: SequentialLR(
        o,
        [LambdaLR(o, lambda s: (s + 1) / warm), CosineAnnealingLR(o, total - warm)],
        milestones=[warm],
    )


@bench.healthy
def friedman_gelu_nadam() -> Any:
    return {
        "model": lambda: stack(10, 64, 64, 1, act=nn.GELU),
        "batch": friedman,
        "loss": nn.MSELoss(),
        "optimizer": lambda m: torch.optim.NAdam(m.parameters(), lr=3e-3),
    }


@bench.healthy
def friedman_silu_rmsprop_centered() -> Any:
    return {
        "model": lambda: stack(10, 48, 48, 1, act=nn.SiLU),
        "batch": friedman,
        "loss": nn.SmoothL1Loss(),
        "optimizer": lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3, centered=True),
    }


@bench.healthy
def rings_leaky_adagrad() -> Any:
    return {
        "model": lambda: stack(2, 64, 64, 3, act=lambda: nn.LeakyReLU(0.1)),
        "batch": rings,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda m: torch.optim.Adagrad(m.parameters(), lr=5e-2),
    }


@bench.healthy
def rings_tanh_lbfgs_by_closure() -> Any:
    x, y = rings(96)
    return {
        "model": lambda: stack(2, 24, 24, 3, act=nn.Tanh),
        "batch": lambda: (x, y),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda m: torch.optim.LBFGS(
            m.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe"
        ),
    }


class Lion(Optimizer):
    """Sign of an interpolated momentum, as published."""

    def __init__(self, params: Any, lr: float = 3e-4, decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_((0.9 * m + 0.1 * p.grad).sign(), alpha=-group["lr"])
                m.mul_(0.99).add_(p.grad, alpha=0.01)
        return loss


@bench.healthy
def digits_by_a_lion() -> Any:
    return {
        "model": lambda: stack(64, 96, 96, 10, act=nn.ReLU, norm=nn.LayerNorm),
        "batch": rows("digits"),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda m: Lion(m.parameters(), lr=1e-3),
    }


@bench.healthy
def spirals_hinge_squared() -> Any:
    return {
        "model": lambda: stack(2, 64, 64, 64, 1, act=nn.ELU),
        "batch": spirals,
        "loss": lambda o, t: F.relu(1 - o.squeeze(1) * (2 * t - 1)).square().mean(),
        "optimizer": adam(5e-3),
    }


@bench.healthy
def wine_batchnorm_one_cycle() -> Any:
    return {
        "model": lambda: stack(13, 64, 64, 3, act=nn.ReLU, norm=nn.BatchNorm1d),
        "batch": rows("wine", 48),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.05, momentum=0.9),
        "schedule": lambda o: OneCycleLR(o, max_lr=0.1, total_steps=41),
    }


@bench.healthy
def cancer_orthogonal_selu_clipped() -> Any:
    def model() -> nn.Module:
        net = stack(30, 64, 32, 2, act=nn.SELU)
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
        return net

    return {
        "model": model,
        "batch": rows("breast_cancer"),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.05, momentum=0.9, nesterov=True),
        "clip": 5.0,
    }


@bench.healthy
def digits_four_micro_batches_warm_cosine() -> Any:
    return {
        "model": lambda: stack(64, 128, 128, 10, act=nn.GELU, norm=nn.LayerNorm),
        "batch": rows("digits", 16),
        "loss": nn.CrossEntropyLoss(label_smoothing=0.05),
        "optimizer": adamw(3e-3, weight_decay=0.1),
        "accumulate": 4,
        "clip": 1.0,
        "schedule": warm_cosine(),
    }


@bench.healthy
def digits_bf16_swish_layernorm() -> Any:
    return {
        "model": lambda: stack(64, 96, 96, 10, act=nn.SiLU, norm=nn.LayerNorm),
        "batch": rows("digits", 64),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adamw(2e-3),
        "precision": "bf16",
    }


class Wide(nn.Module):
    """A linear model of crossed features beside a deep one of embedded categories."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 1)
        self.tables = nn.ModuleList(nn.Embedding(n, 6) for n in (7, 12, 31))
        self.deep = nn.Sequential(nn.Linear(12 + 18, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        held = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        return self.linear(numbers) + self.deep(torch.cat([numbers, *held], 1))


def clicks(size: int = 96) -> Any:
    numbers = torch.randn(size, 12)
    categories = torch.stack([torch.randint(n, (size,)) for n in (7, 12, 31)], 1)
    score = numbers[:, 0] + (categories[:, 0] > 3).float() * 2 - (categories[:, 1] % 2) - 1
    return (numbers, categories), (score + 0.3 * torch.randn(size) > 0).float()[:, None]


@bench.healthy
def wide_and_deep_clicks() -> Any:
    return {"model": Wide, "batch": clicks, "loss": nn.BCEWithLogitsLoss(), "optimizer": adam(1e-2)}


class FtTransformer(nn.Module):
    """A token for each feature, two pre-norm layers, a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 24) * 24**-0.5)
        self.bias = nn.Parameter(torch.randn(10, 24) * 24**-0.5)
        self.cls = nn.Parameter(torch.randn(1, 1, 24) * 24**-0.5)
        layer = nn.TransformerEncoderLayer(
            24, 4, 48, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, :, None] * self.weight + self.bias
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.body(tokens)[:, 0])


@bench.healthy
def feature_tokenizer_transformer() -> Any:
    return {
        "model": FtTransformer,
        "batch": friedman,
        "loss": nn.MSELoss(),
        "optimizer": adamw(2e-3),
    }


class ResNetOfTables(nn.Module):
    """BatchNorm, linear, ReLU, dropout, linear, around a skip; torch's initialization."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, 48)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(48),
                nn.Linear(48, 96),
                nn.ReLU(),
                nn.Dropout(0.1),
                nn.Linear(96, 48),
                nn.Dropout(0.1),
            )
            for _ in range(4)
        )
        self.head = nn.Sequential(nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@bench.healthy
def tabular_resnet() -> Any:
    return {
        "model": ResNetOfTables,
        "batch": lambda: friedman(128),
        "loss": nn.MSELoss(),
        "optimizer": adamw(1e-3, weight_decay=1e-5),
    }


@bench.healthy
def ordinal_cumulative_logits() -> Any:
    class Ordinal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = stack(10, 48, 1, act=nn.ReLU)
            self.cuts = nn.Parameter(torch.tensor([-1.0, 0.0, 1.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) - self.cuts

    def batch() -> Any:
        x, y = friedman(96)
        return x, (y > torch.tensor([-0.7, 0.0, 0.7])).float()

    return {
        "model": Ordinal,
        "batch": batch,
        "loss": F.binary_cross_entropy_with_logits,
        "optimizer": adam(1e-2),
    }


@bench.healthy
def negative_binomial_counts() -> Any:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = stack(6, 32, 32, 1, act=nn.Softplus)
            self.dispersion = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), self.dispersion.exp()

    def batch() -> Any:
        x = torch.randn(128, 6)
        rate = (1.2 + 0.7 * x[:, :1] - 0.5 * x[:, 1:2]).exp()
        return x, torch.poisson(rate)

    def loss(outputs: Any, y: Tensor) -> Tensor:
        log_mean, k = outputs
        mean = log_mean.exp()
        part = torch.lgamma(y + k) - torch.lgamma(k) - torch.lgamma(y + 1)
        return -(part + k * (k / (k + mean)).log() + y * (mean / (k + mean)).log()).mean()

    return {"model": Counts, "batch": batch, "loss": loss, "optimizer": adam(5e-3)}


@bench.healthy
def summed_squares_with_a_rate_for_sums() -> Any:
    return {
        "model": lambda: stack(10, 48, 1, act=nn.Tanh),
        "batch": friedman,
        "loss": nn.MSELoss(reduction="sum"),
        "optimizer": sgd(5e-4),
    }


@bench.healthy
def monotone_network_of_exponentiated_weights() -> Any:
    class Positive(nn.Module):
        def __init__(self, n: int, m: int) -> None:
            super().__init__()
            self.raw = nn.Parameter(torch.randn(m, n) * 0.3 - math.log(n))
            self.bias = nn.Parameter(torch.linspace(-1, 1, m))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.raw.exp(), self.bias)

    def batch() -> Any:
        x = torch.rand(64, 3) * 2 - 1
        return x, (x[:, :1] ** 3 + x[:, 1:2] + 0.5 * x[:, 2:]) + 0.05 * torch.randn(64, 1)

    return {
        "model": lambda: nn.Sequential(Positive(3, 32), nn.Tanh(), Positive(32, 1)),
        "batch": batch,
        "loss": nn.MSELoss(),
        "optimizer": adam(2e-2),
    }


@bench.healthy
def evidential_dirichlet_classes() -> Any:
    def loss(o: Tensor, t: Tensor) -> Tensor:
        alpha = F.softplus(o) + 1
        total = alpha.sum(1)
        return (total.digamma() - alpha.gather(1, t[:, None])[:, 0].digamma()).mean()

    return {
        "model": lambda: stack(13, 48, 3, act=nn.ReLU),
        "batch": rows("wine"),
        "loss": loss,
        "optimizer": adam(5e-3),
    }


@bench.healthy
def pairwise_ranking_margin() -> Any:
    def batch() -> Any:
        x, y = friedman(128)
        return (x[:64], x[64:]), torch.sign(y[:64] - y[64:])

    class Ranker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = stack(10, 48, 1, act=nn.ReLU)

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return self.score(a), self.score(b)

    return {
        "model": Ranker,
        "batch": batch,
        "loss": lambda o, t: F.margin_ranking_loss(o[0], o[1], t, margin=0.5),
        "optimizer": adam(3e-3),
    }


@bench.healthy
def orthogonalized_momentum() -> Any:
    class Orthogonal(Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p)).mul_(0.9).add_(p.grad)
                update = m
                if p.ndim == 2:
                    u, _, v = torch.linalg.svd(m, full_matrices=False)
                    update = u @ v * max(1, p.shape[0] / p.shape[1]) ** 0.5
                p.add_(update, alpha=-self.param_groups[0]["lr"])

    return {
        "model": lambda: stack(64, 64, 64, 10, act=nn.ReLU),
        "batch": rows("digits", 64),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda m: Orthogonal(m.parameters(), 0.02),
    }
