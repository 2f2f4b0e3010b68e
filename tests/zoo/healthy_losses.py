"""Healthy trainings with every common loss, normalization, and parametrization."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.zoo.healthy_dense import CE, mlp
from tests.zoo.recipes import Zoo, adam, adamw, curve, digits, rows, sgd

zoo = Zoo()


@zoo
def label_smoothing() -> Any:
    return {
        "model": lambda: mlp(64, 128, 10),
        "batch": rows("digits"),
        "loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1),
        "optimizer": adam(),
    }


@zoo
def weighted_cross_entropy_imbalanced() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        y = (torch.rand(64) < 0.1).long()
        return torch.randn(64, 12) + y[:, None] * 1.5, y

    return {
        "model": lambda: mlp(12, 32, 2),
        "batch": batch,
        "loss_fn": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0])),
        "optimizer": adam(1e-2),
    }


@zoo
def multilabel_bce_with_logits() -> Any:
    direction = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(32, 20)
        return x, (x @ direction > 1).float()

    return {
        "model": lambda: mlp(20, 64, 6),
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def soft_targets_mixup() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        (a, ya), (b, yb) = rows("digits")(), rows("digits")()
        share = torch.rand(len(a), 1)
        soft = share * F.one_hot(ya, 10) + (1 - share) * F.one_hot(yb, 10)
        return share * a + (1 - share) * b, soft

    return {
        "model": lambda: mlp(64, 128, 10),
        "batch": batch,
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def focal_loss_by_hand() -> Any:
    def focal(logits: Tensor, y: Tensor) -> Tensor:
        ce = F.cross_entropy(logits, y, reduction="none")
        return ((1 - torch.exp(-ce)) ** 2 * ce).mean()

    return {
        "model": lambda: mlp(64, 128, 10),
        "batch": rows("digits"),
        "loss_fn": focal,
        "optimizer": adam(),
    }


@zoo
def poisson_nll() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 8)
        return x, torch.poisson(torch.exp(x[:, :1] + 0.5))

    return {
        "model": lambda: mlp(8, 32, 1),
        "batch": batch,
        "loss_fn": nn.PoissonNLLLoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def gaussian_nll_two_heads() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(1, 64), nn.ReLU())
            self.mean = nn.Linear(64, 1)
            self.variance = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.body(x)
            return self.mean(x), F.softplus(self.variance(x)) + 1e-6

    return {
        "model": Net,
        "batch": curve,
        "loss_fn": lambda out, y: F.gaussian_nll_loss(out[0], y, out[1]),
        "optimizer": adam(3e-3),
    }


@zoo
def quantile_loss() -> Any:
    levels = torch.tensor([0.1, 0.5, 0.9])

    def pinball(out: Tensor, y: Tensor) -> Tensor:
        error = y - out
        return torch.max(levels * error, (levels - 1) * error).mean()

    return {
        "model": lambda: mlp(1, 64, 3),
        "batch": curve,
        "loss_fn": pinball,
        "optimizer": adam(1e-2),
    }


@zoo
def l1_regression() -> Any:
    return {
        "model": lambda: nn.Sequential(mlp(10, 64, 1), nn.Flatten(0)),
        "batch": rows("diabetes"),
        "loss_fn": nn.L1Loss(),
        "optimizer": adam(3e-3),
    }


@zoo
def mixture_density_network() -> Any:
    class Mdn(nn.Module):
        def __init__(self, components: int = 5) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(1, 32), nn.Tanh())
            self.pi = nn.Linear(32, components)
            self.mu = nn.Linear(32, components)
            self.log_sigma = nn.Linear(32, components)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = self.body(x)
            return F.log_softmax(self.pi(x), dim=-1), self.mu(x), self.log_sigma(x)

    def loss(out: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
        log_pi, mu, log_sigma = out
        z = (y - mu) * torch.exp(-log_sigma)
        log_p = -0.5 * z**2 - log_sigma - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(log_pi + log_p, dim=-1).mean()

    return {"model": Mdn, "batch": curve, "loss_fn": loss, "optimizer": adam(1e-2)}


@zoo
def multi_task_heads() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = mlp(64, 128, 64)
            self.digit = nn.Linear(64, 10)
            self.odd = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = F.relu(self.trunk(x))
            return {"digit": self.digit(hidden), "odd": self.odd(hidden).squeeze(-1)}

    def loss(out: dict[str, Tensor], y: Tensor) -> Tensor:
        odd = F.binary_cross_entropy_with_logits(out["odd"], (y % 2).float())
        return F.cross_entropy(out["digit"], y) + 0.5 * odd

    return {"model": Net, "batch": rows("digits"), "loss_fn": loss, "optimizer": adam()}


@zoo
def cosine_embedding_siamese() -> Any:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = mlp(64, 64, 16)

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return self.encoder(a), self.encoder(b)

    def batch() -> Any:
        (a, ya), (b, yb) = rows("digits", 64)(), rows("digits", 64)()
        return (a, b), torch.where(ya == yb, 1.0, -1.0)

    return {
        "model": Siamese,
        "batch": batch,
        "loss_fn": lambda out, y: F.cosine_embedding_loss(out[0], out[1], y, margin=0.2),
        "optimizer": adam(),
    }


@zoo
def triplet_margin() -> Any:
    def step(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        z = F.normalize(model(x), dim=1)
        distances = torch.cdist(z, z)
        same = y[:, None] == y[None, :]
        positive = distances.masked_fill(~same, 0).max(dim=1).values
        negative = distances.masked_fill(same, 9).min(dim=1).values
        return F.relu(positive - negative + 0.3).mean()

    return {
        "model": lambda: mlp(64, 64, 16),
        "batch": rows("digits", 64),
        "training_step": step,
        "optimizer": adam(),
    }


@zoo
def distillation_from_a_teacher() -> Any:
    class Distill(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = mlp(64, 256, 10).requires_grad_(False)
            self.student = mlp(64, 32, 10)
            nn.init.orthogonal_(self.teacher[2].weight, gain=4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                wanted = self.teacher.eval()(x)
            return self.student(x), wanted

    def loss(out: tuple[Tensor, Tensor], y: Tensor, heat: float = 2.0) -> Tensor:
        student, teacher = out
        soft = F.kl_div(
            F.log_softmax(student / heat, dim=1),
            F.softmax(teacher / heat, dim=1),
            reduction="batchmean",
        )
        return heat**2 * soft + 0.5 * F.cross_entropy(student, y)

    return {
        "model": Distill,
        "batch": rows("digits"),
        "loss_fn": lambda out, y: loss(out, y),
        "optimizer": lambda model: torch.optim.Adam(model.student.parameters(), lr=1e-3),
    }


@zoo
def ema_copy_consistency() -> Any:
    class MeanTeacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = mlp(64, 64, 10)
            self.ema = copy.deepcopy(self.student).requires_grad_(False)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                for slow, fast in zip(
                    self.ema.parameters(), self.student.parameters(), strict=True
                ):
                    slow.lerp_(fast, 0.01)
                wanted = self.ema(x + 0.1 * torch.randn_like(x)).softmax(dim=1)
            return self.student(x), wanted

    def loss(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return F.cross_entropy(out[0], y) + F.mse_loss(out[0].softmax(dim=1), out[1])

    return {
        "model": MeanTeacher,
        "batch": rows("digits"),
        "loss_fn": loss,
        "optimizer": lambda m: torch.optim.Adam(m.student.parameters(), lr=1e-3),
    }


@zoo
def batchnorm_sgd_momentum() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(inplace=True),
            nn.Linear(128, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(inplace=True),
            nn.Linear(128, 10),
        )  # fmt: skip

    return {"model": model, "batch": rows("digits", 64), "loss_fn": CE, "optimizer": sgd(0.1, 0.9)}


@zoo
def batchnorm_batch_of_16() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    return {"model": model, "batch": rows("digits", 16), "loss_fn": CE, "optimizer": adam()}


@zoo
def dropout_half_layernorm() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Dropout(0.5),
            nn.Linear(128, 128), nn.LayerNorm(128), nn.GELU(), nn.Dropout(0.5),
            nn.Linear(128, 10),
        )  # fmt: skip

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adamw()}


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@zoo
def rmsnorm_by_hand_swiglu() -> Any:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = RMSNorm(width)
            self.gate = nn.Linear(width, 2 * width, bias=False)
            self.up = nn.Linear(width, 2 * width, bias=False)
            self.down = nn.Linear(2 * width, width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, 32), *[Block(32) for _ in range(4)], RMSNorm(32), nn.Linear(32, 10)
        )

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adamw()}


def conv_net(norm: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), norm(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


@zoo
def group_norm_conv() -> Any:
    return {
        "model": lambda: conv_net(lambda c: nn.GroupNorm(4, c)),
        "batch": digits(),
        "loss_fn": CE,
        "optimizer": adam(3e-3),
    }


@zoo
def instance_norm_conv() -> Any:
    return {
        "model": lambda: conv_net(lambda c: nn.InstanceNorm2d(c, affine=True)),
        "batch": digits(),
        "loss_fn": CE,
        "optimizer": adam(3e-3),
    }


@zoo
def weight_norm_mlp() -> Any:
    def model() -> nn.Module:
        wn = parametrizations.weight_norm
        return nn.Sequential(
            wn(nn.Linear(64, 128)), nn.ReLU(), wn(nn.Linear(128, 64)), nn.ReLU(),
            wn(nn.Linear(64, 10)),
        )  # fmt: skip

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


@zoo
def spectral_norm_mlp() -> Any:
    def model() -> nn.Module:
        sn = parametrizations.spectral_norm
        return nn.Sequential(
            sn(nn.Linear(64, 128)), nn.LeakyReLU(0.2), sn(nn.Linear(128, 64)), nn.LeakyReLU(0.2),
            nn.Linear(64, 10),
        )  # fmt: skip

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.stem = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
            for _ in range(3)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


@zoo
def checkpointed_reentrant() -> Any:
    return {
        "model": lambda: Checkpointed(True),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def checkpointed_not_reentrant() -> Any:
    return {
        "model": lambda: Checkpointed(False),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


class LoraLinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(rank))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2.0 * (x @ self.lora_a.T @ self.lora_b.T)


def pretrained_trunk() -> nn.Sequential:
    """A trunk that has been trained: its weights are far from any initialization."""
    torch.manual_seed(1)
    trunk = mlp(64, 64, 64)
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(60):
        x, y = rows("digits", 64)()
        optimizer.zero_grad()
        F.cross_entropy(head(F.relu(trunk(x))), y).backward()
        optimizer.step()
    return trunk


@zoo
def lora_on_a_trained_trunk() -> Any:
    def model() -> nn.Module:
        trunk = pretrained_trunk()
        adapted = (LoraLinear(layer) if isinstance(layer, nn.Linear) else layer for layer in trunk)
        return nn.Sequential(*adapted, nn.ReLU(), nn.Linear(64, 10))

    return {
        "model": model,
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": lambda m: torch.optim.Adam(
            [p for p in m.parameters() if p.requires_grad], lr=1e-3
        ),
    }


@zoo
def frozen_trunk_and_head() -> Any:
    def model() -> nn.Module:
        trunk = pretrained_trunk().requires_grad_(False)
        return nn.Sequential(trunk, nn.ReLU(), nn.Linear(64, 10))

    return {
        "model": model,
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": lambda m: torch.optim.Adam(m[2].parameters(), lr=1e-2),
    }


@zoo
def cox_partial_likelihood() -> Any:
    def loss(risk: Tensor, time: Tensor) -> Tensor:
        ranked = risk.squeeze(1)[torch.argsort(time, descending=True)]
        return -(ranked - torch.logcumsumexp(ranked, 0)).mean()

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 10)
        return x, torch.exp(-x[:, 0]) * torch.rand(64)

    return {
        "model": lambda: mlp(10, 32, 1),
        "batch": batch,
        "loss_fn": loss,
        "optimizer": adam(1e-2),
    }


@zoo
def one_positive_in_forty_with_its_prior_as_bias() -> Any:
    def model() -> nn.Module:
        net = mlp(12, 32, 1)
        nn.init.constant_(net[-1].bias, -3.5)
        return net

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(256, 12)
        return x, (x[:, :1] > 2).float()

    return {
        "model": model,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


@zoo
def conditional_random_field() -> Any:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 24)
            self.lstm = nn.LSTM(24, 24, batch_first=True, bidirectional=True)
            self.head, self.moves = nn.Linear(48, 4), nn.Parameter(torch.zeros(4, 4))

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.lstm(self.embed(tokens))[0])

    def step(model: nn.Module, batch: Any) -> Tensor:
        tokens, tags = batch
        scores = model(tokens)
        chosen = scores.gather(2, tags[..., None]).sum((1, 2))
        chosen = chosen + model.moves[tags[:, :-1], tags[:, 1:]].sum(1)
        total = scores[:, 0]
        for t in range(1, tokens.shape[1]):
            total = torch.logsumexp(total[:, :, None] + model.moves, 1) + scores[:, t]
        return (torch.logsumexp(total, 1) - chosen).mean()

    def batch() -> tuple[Tensor, Tensor]:
        tokens = torch.randint(30, (16, 12))
        return tokens, tokens % 4

    return {"model": Tagger, "batch": batch, "training_step": step, "optimizer": adam(1e-2)}
