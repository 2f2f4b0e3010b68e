"""Healthy trainings that resemble a fault: each is the twin of what a rule looks for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.healthy_dense import CE, mlp
from tests.zoo.healthy_sequences import TOKENS
from tests.zoo.healthy_vision import conv_bn
from tests.zoo.recipes import (
    Zoo,
    adam,
    adamw,
    digits,
    marked,
    next_tokens,
    rows,
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
def arcface_at_its_published_scale() -> Any:
    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 128, 128)
            self.centers = nn.Parameter(torch.randn(10, 128))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.normalize(self.body(x)), F.normalize(self.centers))

    def loss(cosine: Tensor, y: Tensor) -> Tensor:
        angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
        own = F.one_hot(y, 10).bool()
        return F.cross_entropy(64 * torch.where(own, torch.cos(angle + 0.5), cosine), y)

    return {"model": Cosines, "batch": rows("digits"), "loss_fn": loss, "optimizer": adam()}


@zoo
def cosine_classifier_with_a_fixed_scale() -> Any:
    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 64, 16)
            self.centers = nn.Parameter(torch.randn(10, 16))

        def forward(self, x: Tensor) -> Tensor:
            return 30 * F.linear(F.normalize(self.body(x)), F.normalize(self.centers))

    return {"model": Cosines, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


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
            with torch.no_grad():
                for _ in range(50):  # statistics of the data, as a trained trunk has them
                    self.trunk(digits()()[0])
            for m in self.trunk.modules():
                if isinstance(m, nn.BatchNorm2d):
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
            [p for p in m.parameters() if p.requires_grad],
            lr=2e-3,  # at 1e-2 units die for good: frozen statistics cannot bring them back
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
def scores_filled_in_where_nothing_is_to_choose() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.score = mlp(8, 32, 32), nn.Linear(32, 1)

        def forward(self, items: Tensor, shown: Tensor) -> Tensor:
            h = F.relu(self.body(items))
            mean = (h * shown[:, :, None]).sum(1, keepdim=True) / shown.sum(1)[:, None, None]
            return self.score(h - mean)[:, :, 0].masked_fill(~shown, -1e9)

    def batch() -> tuple[tuple[Tensor, Tensor], Tensor]:
        items = torch.randn(32, 12, 8)
        shown = torch.arange(12) < torch.randint(4, 12, (32, 1))
        best = items[:, :, :2].sum(-1).masked_fill(~shown, -1e9).argmax(1)
        return (items, shown), best

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
