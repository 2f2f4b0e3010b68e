"""Healthy trainings whose signals, weights or data resemble a fault of theirs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.healthy_dense import CE, he, mlp
from tests.zoo.healthy_generative import diffusion_step
from tests.zoo.healthy_vision import conv_bn
from tests.zoo.recipes import (
    Zoo,
    adam,
    adamw,
    blobs,
    curve,
    digits,
    marked,
    rows,
    sgd,
    unit_digits,
    waves,
)

zoo = Zoo()


@zoo
def edsr_sixteen_blocks_without_norm() -> Any:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
            self.conv2 = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv2(F.relu(self.conv1(x)))

    class Edsr(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 16, 3, padding=1)
            blocks = [Block() for _ in range(16)]
            self.body = nn.Sequential(*blocks, nn.Conv2d(16, 16, 3, padding=1))
            self.last = nn.Sequential(nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x + self.body(x))

    def batch() -> tuple[Tensor, Tensor]:
        x = unit_digits(16)()
        return F.avg_pool2d(x, 2), x

    return {"model": Edsr, "batch": batch, "loss_fn": nn.L1Loss(), "optimizer": adam(1e-3)}


@zoo
def wavenet_gated_skips() -> Any:
    class WaveNet(nn.Module):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.first = nn.Conv1d(1, width, 1)
            self.gates = nn.ModuleList(
                nn.Conv1d(width, 2 * width, 2, dilation=2 ** (i % 4)) for i in range(8)
            )
            self.mix = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in range(8))
            self.head = nn.Sequential(
                nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, 1, 1)
            )

        def forward(self, x: Tensor) -> Tensor:
            x, skips = self.first(x), torch.zeros(1)
            for i, (gate, mix) in enumerate(zip(self.gates, self.mix, strict=True)):
                a, b = gate(F.pad(x, (2 ** (i % 4), 0))).chunk(2, 1)
                residual, skip = mix(torch.tanh(a) * torch.sigmoid(b)).chunk(2, 1)
                x, skips = x + residual, skips + skip
            return self.head(skips)

    def batch() -> tuple[Tensor, Tensor]:
        x = waves()[0].transpose(1, 2)
        return x[:, :, :-1], x[:, :, 1:]

    return {"model": WaveNet, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-3)}


@zoo
def eight_convolutions_default_init() -> Any:
    def model() -> nn.Module:
        layers = [m for i in range(8) for m in (nn.Conv2d(16 if i else 1, 16, 3, 1, 1), nn.ReLU())]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))

    return {
        "model": model,
        "batch": digits(),
        "loss_fn": CE,
        "optimizer": adam(3e-3),
    }


@zoo
def twelve_convolutions_he_init() -> Any:
    def model() -> nn.Module:
        layers = [m for i in range(12) for m in (nn.Conv2d(16 if i else 1, 16, 3, 1, 1), nn.ReLU())]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam()}


@zoo
def identity_recurrence_of_relus() -> Any:
    class Irnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(1, 48, nonlinearity="relu", batch_first=True)
            self.head = nn.Linear(48, 4)
            nn.init.eye_(self.rnn.weight_hh_l0)
            nn.init.normal_(self.rnn.weight_ih_l0, std=0.1)
            nn.init.zeros_(self.rnn.bias_ih_l0)
            nn.init.zeros_(self.rnn.bias_hh_l0)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return {"model": Irnn, "batch": waves, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo(learns=False)  # a hundred steps to look back on take more than forty of training
def lstm_of_one_hundred_steps() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0].mean(1))

    return {
        "model": Net,
        "batch": lambda: waves(32, 100),
        "loss_fn": CE,
        "optimizer": adam(1e-2),
    }


@zoo
def detr_zero_queries() -> Any:
    class Detr(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.body = nn.Conv2d(1, width, 4, 4)
            self.place = nn.Parameter(torch.randn(16, width) * 0.1)
            self.query = nn.Embedding(4, width)
            layer = nn.TransformerDecoderLayer(width, 4, 64, 0.0, batch_first=True)
            self.decoder = nn.TransformerDecoder(layer, 2)
            self.box = nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            memory = self.body(x).flatten(2).transpose(1, 2) + self.place
            query = self.query.weight.expand(len(x), -1, -1)
            return self.box(self.decoder(torch.zeros_like(query) + query, memory)).sigmoid()

    def batch() -> tuple[Tensor, Tensor]:
        x, masks = blobs(16)
        seen = masks.float()
        grid = torch.arange(16) / 16
        y = torch.stack([(seen * grid[:, None]).sum((1, 2)), (seen * grid).sum((1, 2))], dim=1)
        return x, torch.cat([y / seen.sum((1, 2))[:, None], torch.full((16, 2), 0.3)], dim=1)

    return {
        "model": Detr,
        "batch": batch,
        "loss_fn": lambda out, y: F.l1_loss(out, y[:, None].expand_as(out)),
        "optimizer": adamw(3e-3),
    }


@zoo
def cosine_attention_with_learned_temperature() -> Any:
    class Net(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.embed, self.qkv = nn.Linear(8, width), nn.Linear(width, 3 * width)
            self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(1, 2)
            x = x + (scores * self.log_scale.exp()).softmax(-1) @ v
            return self.head(self.norm(x).mean(1))

    return {"model": Net, "batch": marked, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def linear_attention() -> Any:
    class Net(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.embed, self.qkv = nn.Linear(8, width), nn.Linear(width, 3 * width)
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            q, k = F.elu(q) + 1, F.elu(k) + 1
            mixed = q @ (k.transpose(1, 2) @ v)
            x = x + mixed / (q @ k.sum(1).unsqueeze(-1))
            return self.head(self.norm(x).mean(1))

    return {"model": Net, "batch": marked, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def soft_decision_tree() -> Any:
    class Tree(nn.Module):
        def __init__(self, depth: int = 3) -> None:
            super().__init__()
            self.gates = nn.Linear(64, 2**depth - 1)
            self.leaves = nn.Parameter(torch.randn(2**depth, 10) * 0.1)
            self.depth = depth

        def forward(self, x: Tensor) -> Tensor:
            gates = torch.sigmoid(self.gates(x))
            reach = x.new_ones(len(x), 1)
            for level in range(self.depth):
                g = gates[:, 2**level - 1 : 2 ** (level + 1) - 1]
                reach = torch.stack([reach * g, reach * (1 - g)], dim=2).flatten(1)
            return torch.log(reach @ self.leaves.softmax(dim=1))

    return {
        "model": Tree,
        "batch": rows("digits", 64),
        "loss_fn": F.nll_loss,
        "optimizer": adam(3e-2),
    }


@zoo
def sdf_softplus_beta_100_geometric_init() -> Any:
    def model() -> nn.Module:
        net = mlp(3, 64, 64, 64, 1, act=nn.Softplus, beta=100)
        for layer in net[:-1]:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.out_features))
                nn.init.zeros_(layer.bias)
        nn.init.normal_(net[-1].weight, math.sqrt(math.pi / 64), 1e-4)
        nn.init.constant_(net[-1].bias, -0.5)
        return net

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.rand(256, 3) * 2 - 1
        return x, x.norm(dim=1, keepdim=True) - 0.7

    return {"model": model, "batch": batch, "loss_fn": nn.L1Loss(), "optimizer": adam(1e-3)}


@zoo
def log_mel_spectrograms_into_batchnorm() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(1), conv_bn(1, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(64, 4),
        )  # fmt: skip

    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(4, (32,))
        loud = torch.where(torch.arange(16) // 4 == y[:, None], 9.0, 1.0)
        power = torch.rand(32, 1, 16, 20) * loud[:, None, :, None]
        return 10 * torch.log10(power.clamp(min=1e-4)), y

    return {"model": model, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def counts_and_flags_as_features() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        flags = (torch.rand(64, 12) < 0.15).float()
        counts = torch.poisson(torch.full((64, 4), 1.5))
        return torch.cat([flags, counts], dim=1), (counts[:, 0] > 1).long()

    return {"model": lambda: mlp(16, 32, 2), "batch": batch, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def sparse_term_frequencies() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (64,))
        rate = torch.full((64, 300), 0.02)
        rate[:, :20] += 0.1 * y[:, None]
        words = (torch.rand(64, 300) < rate).float()
        return F.normalize(words, dim=1), y

    return {
        "model": lambda: mlp(300, 32, 2),
        "batch": batch,
        "loss_fn": CE,
        "optimizer": adam(1e-2),
    }


@zoo
def squared_relu_feed_forward() -> Any:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up = nn.LayerNorm(32), nn.Linear(32, 128, bias=False)
            self.down = nn.Linear(128, 32, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(F.relu(self.up(self.norm(x))).square())

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), *[Block() for _ in range(3)], nn.Linear(32, 10))

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


@zoo
def parametrized_orthogonal_layers() -> Any:
    def model() -> nn.Module:
        orthogonal = nn.utils.parametrizations.orthogonal
        return nn.Sequential(
            orthogonal(nn.Linear(64, 64)), nn.ELU(), orthogonal(nn.Linear(64, 64)), nn.ELU(),
            nn.Linear(64, 10),
        )  # fmt: skip

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


@zoo
def lazy_layers() -> Any:
    return {
        "model": lambda: nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(10)),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def maxout() -> Any:
    class Maxout(nn.Module):
        def __init__(self, fan_in: int, width: int) -> None:
            super().__init__()
            self.linear, self.width = nn.Linear(fan_in, 3 * width), width

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).view(len(x), self.width, 3).amax(dim=2)

    return {
        "model": lambda: nn.Sequential(Maxout(64, 48), Maxout(48, 48), nn.Linear(48, 10)),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": sgd(0.05),
    }


@zoo
def radial_basis_functions() -> Any:
    class Rbf(nn.Module):
        def __init__(self, centers: int = 24) -> None:
            super().__init__()
            self.centers = nn.Parameter(torch.linspace(-2, 2, centers)[:, None])
            self.head = nn.Linear(centers, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.exp(-(torch.cdist(x, self.centers) ** 2) / 0.1))

    return {"model": Rbf, "batch": curve, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-2)}


@zoo
def pixel_cnn_masked_convolutions() -> Any:
    class Masked(nn.Conv2d):
        def __init__(self, fan_in: int, fan_out: int, size: int, itself: bool) -> None:
            super().__init__(fan_in, fan_out, size, padding=size // 2)
            seen = torch.ones_like(self.weight)
            seen[:, :, size // 2, size // 2 + itself :] = 0
            seen[:, :, size // 2 + 1 :] = 0
            self.register_buffer("seen", seen)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight * self.seen, self.bias, padding=self.padding)

    def model() -> nn.Module:
        return nn.Sequential(
            Masked(1, 24, 5, False), nn.ReLU(), Masked(24, 24, 3, True), nn.ReLU(),
            nn.Conv2d(24, 1, 1),
        )  # fmt: skip

    def batch() -> tuple[Tensor, Tensor]:
        x = (unit_digits()() > 0.5).float()
        return x, x

    return {
        "model": model,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def prototypical_network() -> Any:
    def step(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        z = model(x)
        support, query = z[:64], z[64:]
        one = F.one_hot(y[:64], 10).float()
        prototypes = one.t() @ support / one.sum(0).clamp(min=1)[:, None]
        return F.cross_entropy(-(torch.cdist(query, prototypes) ** 2), y[64:])

    return {
        "model": lambda: mlp(64, 64, 16).apply(he),
        "batch": rows("digits", 128),
        "training_step": step,
        "optimizer": adam(),
    }


@zoo
def classifier_free_guidance() -> Any:
    class Guided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.label, self.time = nn.Embedding(11, 64), nn.Linear(1, 64)
            self.body = mlp(64, 128, 128, 64, act=nn.SiLU)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            y = torch.full((len(x),), 10)
            return self.body(x + self.time(t[:, None]) + self.label(y))

    return {
        "model": Guided,
        "batch": unit_digits(64),
        "training_step": diffusion_step,
        "optimizer": adam(1e-3),
    }
