"""Healthy trainings that resemble a fault: each is the twin of something a rule looks for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.healthy_dense import CE, he, mlp
from tests.zoo.healthy_generative import diffusion_step
from tests.zoo.healthy_sequences import TOKENS
from tests.zoo.healthy_vision import conv_bn
from tests.zoo.recipes import (
    Zoo,
    adam,
    adamw,
    blobs,
    curve,
    digits,
    marked,
    next_tokens,
    rows,
    sgd,
    table,
    unit_digits,
    waves,
)

zoo = Zoo()


# -- axes: time first, nodes first, samples that attend to samples --------------------------


@zoo
def lstm_time_first() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][-1])

    def batch() -> tuple[Tensor, Tensor]:
        x, y = waves()
        return x.transpose(0, 1), y

    return {"model": Net, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def transformer_time_first() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(8, 32)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4, 64), 2, enable_nested_tensor=False
            )
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(x)).mean(0))

    def batch() -> tuple[Tensor, Tensor]:
        x, y = marked()
        return x.transpose(0, 1), y

    return {"model": Net, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-3)}


@zoo
def word_model_time_first_flat_targets() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn = nn.Embedding(TOKENS, 32), nn.GRU(32, 32)
            self.head = nn.Linear(32, TOKENS)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.rnn(self.embed(tokens))[0]).view(-1, TOKENS)

    def batch() -> tuple[Tensor, Tensor]:
        tokens, wanted = next_tokens(TOKENS)()
        return tokens.t().contiguous(), wanted.t().reshape(-1)

    return {"model": Net, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def attention_between_samples_of_a_table() -> Any:
    class Saint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Linear(30, 32), nn.LayerNorm(32)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
            self.head = nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(self.embed(x))[None]
            return self.head((h + self.attention(h, h, h)[0])[0])

    return {"model": Saint, "batch": rows("breast_cancer"), "loss_fn": CE, "optimizer": adam()}


@zoo
def minibatch_standard_deviation() -> Any:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = mlp(64, 64, 32), nn.Linear(33, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = F.leaky_relu(self.body(x), 0.2)
            spread = h.std(dim=0).mean().expand(len(h), 1)
            return self.head(torch.cat([h, spread], dim=1)).squeeze(1)

    def step(model: nn.Module, real: Tensor) -> Tensor:
        real = real.flatten(1) * 2 - 1
        return F.softplus(-model(real)).mean() + F.softplus(model(torch.randn_like(real))).mean()

    return {
        "model": Critic,
        "batch": unit_digits(),
        "training_step": step,
        "optimizer": adam(),
    }


@zoo
def all_rows_sorted_by_class() -> Any:
    return {
        "model": lambda: mlp(4, 16, 3),
        "batch": lambda: table("iris"),
        "loss_fn": CE,
        "optimizer": adam(1e-2),
    }


# -- additions of different shapes that are meant -------------------------------------------


@zoo
def diffusion_unet_with_time_embedding() -> Any:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm1, self.conv1 = nn.GroupNorm(4, width), nn.Conv2d(width, width, 3, padding=1)
            self.norm2, self.conv2 = nn.GroupNorm(4, width), nn.Conv2d(width, width, 3, padding=1)
            self.time = nn.Linear(32, width)
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            h = self.conv1(F.silu(self.norm1(x)))
            h = h + self.time(F.silu(t))[:, :, None, None]
            return x + self.conv2(F.silu(self.norm2(h)))

    class Net(nn.Module):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32))
            self.first = nn.Conv2d(1, width, 3, padding=1)
            self.down, self.middle, self.up = Block(width), Block(width), Block(width)
            self.join = nn.Conv2d(2 * width, width, 1)
            self.norm, self.last = nn.GroupNorm(4, width), nn.Conv2d(width, 1, 3, padding=1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            angles = t[:, None].float() * torch.exp(torch.linspace(0, -8, 16))
            t = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
            skip = self.down(self.first(x), t)
            h = F.interpolate(self.middle(F.avg_pool2d(skip, 2), t), scale_factor=2)
            h = self.up(self.join(torch.cat([skip, h], dim=1)), t)
            return self.last(F.silu(self.norm(h)))

    def step(model: nn.Module, x: Tensor) -> Tensor:
        t = torch.randint(0, 1000, (len(x),))
        keep = torch.cos(t / 1000 * math.pi / 2)[:, None, None, None]
        noise = torch.randn_like(x)
        return F.mse_loss(model(keep * x + torch.sqrt(1 - keep**2) * noise, t), noise)

    return {
        "model": Net,
        "batch": lambda: unit_digits()() * 2 - 1,
        "training_step": step,
        "optimizer": adamw(1e-3),
    }


@zoo
def noise_and_time_given_as_inputs() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Embedding(1000, 64)
            self.body = mlp(64, 128, 128, 64, act=nn.SiLU)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.body(x + self.time(t))

    def batch() -> Any:
        x, noise = rows("digits", 64)()[0], torch.randn(64, 64)
        t = torch.randint(0, 1000, (64,))
        keep = torch.cos(t / 1000 * math.pi / 2)[:, None]
        return (keep * x + torch.sqrt(1 - keep**2) * noise, t), noise

    return {"model": Net, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-3)}


@zoo
def dueling_network() -> Any:
    class Dueling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 64), nn.ReLU())
            self.value, self.advantage = nn.Linear(64, 1), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            advantage = self.advantage(h)
            return self.value(h) + advantage - advantage.mean(dim=1, keepdim=True)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 4)
        return x, torch.stack([x[:, 0], -x[:, 0], x[:, 1]], dim=1)

    return {"model": Dueling, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-3)}


@zoo
def pairwise_sums_of_nodes() -> Any:
    class Relation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.out = nn.Linear(6, 32), nn.Linear(6, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            pairs = F.relu(self.left(x)[:, :, None] + self.right(x)[:, None])
            return self.out(pairs).squeeze(-1)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(16, 8, 6)
        return x, (x[:, :, None, 0] > x[:, None, :, 0]).float()

    return {
        "model": Relation,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


# -- optimizers and schedules ------------------------------------------------------------------


@zoo(learns=False)  # a warm-up starts at a rate of zero, and check steps no scheduler
def warm_up_from_zero() -> Any:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        made = torch.optim.AdamW(model.parameters(), lr=1e-3)
        torch.optim.lr_scheduler.LambdaLR(made, lambda step: min(1.0, step / 100))
        return made

    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": optimizer,
    }


def optimized(build: Any) -> Any:
    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits", 64),
        "loss_fn": CE,
        "optimizer": build,
    }


@zoo
def adadelta() -> Any:
    return optimized(lambda p: torch.optim.Adadelta(p, lr=1.0))


@zoo
def adamax() -> Any:
    return optimized(lambda p: torch.optim.Adamax(p, lr=2e-3))


@zoo
def rectified_adam() -> Any:
    return optimized(lambda p: torch.optim.RAdam(p, lr=1e-2))


@zoo
def averaged_sgd() -> Any:
    return optimized(lambda p: torch.optim.ASGD(p, lr=0.1))


@zoo
def nesterov_with_weight_decay() -> Any:
    return optimized(
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    )


@zoo
def resilient_propagation_full_batch() -> Any:
    return {
        "model": lambda: mlp(4, 16, 3),
        "batch": lambda: table("iris"),
        "loss_fn": CE,
        "optimizer": lambda p: torch.optim.Rprop(p, lr=1e-3),
    }


@zoo
def two_groups_two_rates() -> Any:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0, "lr": 1e-2},
        ]
        return torch.optim.AdamW(groups, lr=1e-3)

    return optimized(optimizer)


@zoo
def grokking_with_weight_decay_one() -> Any:
    class Modular(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body = nn.Embedding(23, 32), mlp(64, 128, 23)

        def forward(self, pairs: Tensor) -> Tensor:
            return self.body(self.embed(pairs).flatten(1))

    def batch() -> tuple[Tensor, Tensor]:
        pairs = torch.randint(23, (128, 2))
        return pairs, pairs.sum(1) % 23

    return {"model": Modular, "batch": batch, "loss_fn": CE, "optimizer": adamw(1e-3, 1.0)}


@zoo
def loss_module_with_its_own_weights() -> Any:
    class ArcFace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centers = nn.Parameter(torch.randn(10, 16))

        def forward(self, features: Tensor, y: Tensor) -> Tensor:
            cosine = F.linear(F.normalize(features), F.normalize(self.centers))
            return F.cross_entropy(10 * (cosine - 0.1 * F.one_hot(y, 10)), y)

    loss = ArcFace()
    return {
        "model": lambda: mlp(64, 64, 16),
        "batch": rows("digits"),
        "loss_fn": loss,
        "optimizer": lambda m: torch.optim.Adam([*m.parameters(), *loss.parameters()], lr=1e-3),
    }


@zoo
def uncertainty_weighted_tasks() -> Any:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 64, 32)
            self.digit, self.size = nn.Linear(32, 10), nn.Linear(32, 1)
            self.log_variance = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = F.relu(self.body(x))
            return self.digit(h), self.size(h).squeeze(1), self.log_variance

    def loss(out: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
        digit, size, s = out
        tasks = torch.stack([F.cross_entropy(digit, y), F.mse_loss(size, y / 4.5 - 1)])
        return (torch.exp(-s) * tasks + s).sum()

    return {"model": Weighted, "batch": rows("digits"), "loss_fn": loss, "optimizer": adam(3e-3)}


# -- wiring that is meant ----------------------------------------------------------------------


@zoo
def perceptual_network_kept_out_of_the_parameters() -> Any:
    class Rebuild(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(64, 64, 16, 64, 64)
            self.judge = [mlp(64, 64, 32).requires_grad_(False).eval()]

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            out = self.net(x)
            return out, F.mse_loss(self.judge[0](out), self.judge[0](x))

    return {
        "model": Rebuild,
        "batch": lambda: rows("digits")()[0],
        "training_step": lambda model, x: (lambda o: F.mse_loss(o[0], x) + o[1])(model(x)),
        "optimizer": adam(3e-3),
    }


@zoo
def plain_list_of_registered_layers() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.head = nn.Linear(64, 10)
            self.order = [self.first, self.second]

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.order:
                x = F.relu(layer(x))
            return self.head(x)

    return {"model": Net, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


@zoo
def frozen_batchnorm_of_a_trained_trunk() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(conv_bn(1, 16), conv_bn(16, 16))
            self.head = nn.Linear(16, 10)
            for m in self.trunk.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.running_mean.normal_(0, 0.1)
                    m.running_var.fill_(0.5)
                    m.weight.data.uniform_(0.8, 1.2)
                    m.requires_grad_(False)

        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            for m in self.trunk.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.trunk(x).mean((2, 3)))

    return {
        "model": Net,
        "batch": digits(),
        "loss_fn": CE,
        "optimizer": lambda m: torch.optim.Adam(
            [p for p in m.parameters() if p.requires_grad], lr=1e-2
        ),
    }


@zoo
def siamese_network_with_batchnorm() -> Any:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(conv_bn(1, 16), conv_bn(16, 16, stride=2))
            self.head = nn.Linear(16, 1)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            a, b = (self.encoder(x).mean((2, 3)) for x in (a, b))
            return self.head((a - b).abs()).squeeze(1)

    def batch() -> Any:
        (a, _), (b, _) = digits()(), digits()()
        same = torch.rand(len(a)) < 0.5
        b = torch.where(same[:, None, None, None], a + 0.3 * torch.randn_like(a), b)
        return (a, b), same.float()

    return {
        "model": Siamese,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


@zoo
def frames_through_one_cnn_with_batchnorm() -> Any:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cnn = nn.Sequential(conv_bn(1, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten())
            self.rnn, self.head = nn.GRU(32, 32, batch_first=True), nn.Linear(32, 10)

        def forward(self, frames: Tensor) -> Tensor:
            seen = torch.stack([self.cnn(frames[:, i]) for i in range(frames.shape[1])], dim=1)
            return self.head(self.rnn(seen)[0][:, -1])

    def batch() -> tuple[Tensor, Tensor]:
        x, y = digits()()
        return torch.stack([x.roll(i, dims=-1) for i in range(5)], dim=1), y

    return {"model": Video, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def additive_mask_of_minus_infinity() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 4)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            h = self.embed(x)
            return self.head((h + self.attention(h, h, h, attn_mask=mask)[0]).mean(1))

    def batch() -> Any:
        x, y = marked()
        return {"x": x, "mask": torch.full((12, 12), float("-inf")).triu(1), "labels": y}

    return {"model": Net, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def padded_tokens_and_layernorm() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(TOKENS, 32, padding_idx=0)
            self.norm = nn.LayerNorm(32)
            self.body, self.head = nn.Linear(32, 32), nn.Linear(32, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            h = F.gelu(self.body(self.norm(self.embed(tokens))))
            known = (tokens > 0).unsqueeze(-1)
            return self.head((h * known).sum(1) / known.sum(1))

    def batch() -> tuple[Tensor, Tensor]:
        tokens = torch.randint(1, TOKENS, (32, 14))
        y = (tokens[:, :4] < 8).any(1).long()
        lengths = torch.randint(4, 15, (32, 1))
        return tokens.masked_fill(torch.arange(14) >= lengths, 0), y

    return {"model": Net, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def batchnorm_on_pixels_that_are_always_black() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), mlp(64, 64, 10))

    def batch() -> tuple[Tensor, Tensor]:
        x, y = digits(64)()
        return (x - x.min()) / 4, y

    return {"model": model, "batch": batch, "loss_fn": CE, "optimizer": adam()}


@zoo(learns=False)  # one class: its loss starts near zero
def one_class_deep_svdd() -> Any:
    class Svdd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 32, bias=False), nn.LeakyReLU(0.1))
            self.out = nn.Linear(32, 8, bias=False)
            self.register_buffer("center", torch.full((8,), 0.2))

        def forward(self, x: Tensor) -> Tensor:
            return (self.out(self.net(x)) - self.center).pow(2).sum(1).mean()

    return {
        "model": Svdd,
        "batch": lambda: rows("digits")()[0],
        "training_step": lambda model, x: model(x),
        "optimizer": adamw(1e-4),
    }


# -- signals and initializations that are meant ---------------------------------------------------


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
