"""Sealed and healthy: images, detection, generation."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import blobs, digits, unit_digits

bench = Bench()
CE = nn.CrossEntropyLoss()


class PreActivation(nn.Module):
    """GroupNorm, SiLU, convolution, twice; the last convolution starts at zero."""

    def __init__(self, n: int, m: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, n), nn.GroupNorm(4, m)
        self.conv1 = nn.Conv2d(n, m, 3, stride, 1)
        self.conv2 = nn.Conv2d(m, m, 3, 1, 1)
        self.skip = nn.Identity() if n == m and stride == 1 else nn.Conv2d(n, m, 1, stride)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


@bench.healthy
def preactivation_resnet_groupnorm_zero_residual() -> Any:
    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1),
            PreActivation(16, 16),
            PreActivation(16, 32, 2),
            PreActivation(32, 32),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        ),
        "batch": digits(32),
        "loss": CE,
        "optimizer": sgd(0.05, momentum=0.9, weight_decay=5e-4),
    }


class Shuffle(nn.Module):
    """A unit of grouped convolutions with a shuffle of the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.stack([a, self.branch(b)], 2)
        return y.flatten(1, 2)


@bench.healthy
def shuffle_units_batchnorm() -> Any:
    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 24, 3, 1, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            *(Shuffle(24) for _ in range(4)),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 10),
        ),
        "batch": digits(48),
        "loss": CE,
        "optimizer": sgd(0.05, momentum=0.9),
    }


@bench.healthy
def all_convolutional_leaky_no_norm_he() -> Any:
    def model() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(1, 24, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(24, 24, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(48, 10, 2),
            nn.Flatten(),
        )
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)
        return net

    return {"model": model, "batch": digits(64), "loss": CE, "optimizer": adamw(2e-3)}


class Mobile(nn.Module):
    """An inverted bottleneck with hard-swish and a gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 4 * width
        self.up = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner))
        self.deep = nn.Sequential(
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False), nn.BatchNorm2d(inner)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(inner, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, inner, 1),
            nn.Hardsigmoid(),
        )
        self.down = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.deep(F.hardswish(self.up(x))))
        return x + self.down(h * self.gate(h))


@bench.healthy
def inverted_bottlenecks_hardswish() -> Any:
    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, 1, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.Hardswish(),
            Mobile(12),
            Mobile(12),
            Mobile(12),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(48, 10),
        ),
        "batch": digits(48),
        "loss": nn.CrossEntropyLoss(label_smoothing=0.1),
        "optimizer": lambda m: torch.optim.RMSprop(m.parameters(), 1e-3, momentum=0.9, eps=1e-3),
    }


class Scaled(nn.Module):
    """A pre-norm vision layer with layer scale, computed again in backward."""

    def __init__(self, width: int, again: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale1 = nn.Parameter(torch.full((width,), 0.1))
        self.scale2 = nn.Parameter(torch.full((width,), 0.1))
        self.again = again

    def body(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.scale1 * self.attention(h, h, h, need_weights=False)[0]
        return x + self.scale2 * self.mlp(self.norm2(x))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False) if self.again else self.body(x)


class Patches(nn.Module):
    """A small vision transformer that pools its positions."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 2, 2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, 32))
        self.blocks = nn.Sequential(*(Scaled(32, again) for _ in range(4)))
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.blocks(x).mean(1))


@bench.healthy
def patches_layer_scale_checkpointed() -> Any:
    return {
        "model": lambda: Patches(True),
        "batch": digits(32),
        "loss": CE,
        "optimizer": adamw(3e-3, weight_decay=0.05),
        "clip": 1.0,
    }


@bench.healthy
def patches_layer_scale_bf16() -> Any:
    return {
        "model": Patches,
        "batch": digits(32),
        "loss": CE,
        "optimizer": adamw(3e-3),
        "precision": "bf16",
    }


class CenterNet(nn.Module):
    """A heat map with a prior bias, and sizes at its peaks."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.heat, self.size = nn.Conv2d(32, 1, 1), nn.Conv2d(32, 2, 1)
        nn.init.constant_(self.heat.bias, -2.19)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.heat(h), self.size(h)


def boxes(size: int = 24) -> Any:
    x = 0.3 * torch.randn(size, 1, 16, 16)
    heat, sizes = torch.zeros(size, 1, 8, 8), torch.zeros(size, 2, 8, 8)
    for i in range(size):
        h, w = (int(v) for v in torch.randint(3, 7, (2,)))
        top, left = int(torch.randint(16 - h, (1,))), int(torch.randint(16 - w, (1,)))
        x[i, 0, top : top + h, left : left + w] += 1.5
        r, c = (top + h // 2) // 2, (left + w // 2) // 2
        heat[i, 0, r, c] = 1
        sizes[i, :, r, c] = torch.tensor([h / 4, w / 4])
    return x, (heat, sizes)


def center_loss(outputs: Any, targets: Any) -> Tensor:
    (heat, size), (truth, sizes) = outputs, targets
    p = torch.sigmoid(heat).clamp(1e-4, 1 - 1e-4)
    positive = truth * (1 - p) ** 2 * p.log()
    negative = (1 - truth) * p**2 * (1 - p).log()
    count = truth.sum().clamp(min=1)
    return -(positive + negative).sum() / count + (truth * (size - sizes).abs()).sum() / count


@bench.healthy
def center_points_and_sizes() -> Any:
    return {"model": CenterNet, "batch": boxes, "loss": center_loss, "optimizer": adam(3e-3)}


@bench.healthy
def keypoints_by_soft_argmax() -> Any:
    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(16, 1, 3, 1, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            p = self.body(x).flatten(1).softmax(1).view(len(x), *x.shape[2:])
            grid = torch.linspace(-1, 1, x.shape[2])
            return torch.stack([(p.sum(2) * grid).sum(1), (p.sum(1) * grid).sum(1)], 1)

    def batch() -> Any:
        images, masks = blobs(24)
        grid = torch.linspace(-1, 1, 16)
        m = masks.float()
        rows = (m.sum(2) * grid).sum(1) / m.sum((1, 2))
        return images, torch.stack([rows, (m.sum(1) * grid).sum(1) / m.sum((1, 2))], 1)

    return {"model": Points, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(5e-3)}


@bench.healthy
def dilated_segmentation_instance_norm_dice() -> Any:
    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for i, d in enumerate((1, 2, 4, 1)):
            layers += [nn.Conv2d(16 if i else 1, 16, 3, padding=d, dilation=d)]
            layers += [nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(0.01)]
        return nn.Sequential(*layers, nn.Conv2d(16, 1, 1))

    def loss(o: Tensor, t: Tensor) -> Tensor:
        p = torch.sigmoid(o)
        dice = 1 - (2 * (p * t).sum((1, 2, 3)) + 1) / ((p + t).sum((1, 2, 3)) + 1)
        return dice.mean() + F.binary_cross_entropy_with_logits(o, t)

    def batch() -> Any:
        images, masks = blobs(16)
        return images, masks[:, None].float()

    return {"model": model, "batch": batch, "loss": loss, "optimizer": adam(3e-3)}


@bench.healthy
def depth_by_scale_invariant_logs() -> Any:
    def batch() -> Any:
        images, masks = blobs(16)
        return images, 0.5 + 2.0 * masks[:, None].float() + 0.05 * torch.rand(16, 1, 16, 16)

    def loss(o: Tensor, t: Tensor) -> Tensor:
        d = o - t.log()
        return (d**2).mean() - 0.5 * (d.mean((1, 2, 3)) ** 2).mean()

    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 16, 5, 1, 2),
            nn.ELU(),
            nn.Conv2d(16, 16, 5, 1, 2),
            nn.ELU(),
            nn.Conv2d(16, 1, 3, 1, 1),
        ),
        "batch": batch,
        "loss": loss,
        "optimizer": adam(3e-3),
    }


class BetaVae(nn.Module):
    """A convolutional variational autoencoder with Gaussian pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(128, 16),
        )
        self.decoder = nn.Sequential(
            nn.Linear(8, 128),
            nn.SiLU(),
            nn.Unflatten(1, (32, 2, 2)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 16, 3, 1, 1),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 1, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, 1)
        return self.decoder(mean + torch.randn_like(mean) * (0.5 * logvar).exp()), mean, logvar


def _vae(model: nn.Module, x: Any) -> Tensor:
    rebuilt, mean, logvar = model(x)
    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)
    return ((rebuilt - x) ** 2).sum((1, 2, 3)).mul(5).mean() + 4 * divergence.mean()


@bench.healthy
def beta_vae_upsampling() -> Any:
    return {"model": BetaVae, "batch": unit_digits(48), "step": _vae, "optimizer": adam(2e-3)}


class Velocity(nn.Module):
    """A convolutional network of noise and time, modulated by features of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 48))
        self.first = nn.Conv2d(1, 24, 3, 1, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(24, 24, 3, 1, 1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(4, 24) for _ in range(2))
        self.last = nn.Conv2d(24, 1, 3, 1, 1)
        self.register_buffer("rates", torch.exp(torch.linspace(0, 4, 8)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        wave = t[:, None] * self.rates
        scale, shift = self.time(torch.cat([wave.sin(), wave.cos()], 1)).chunk(2, 1)
        x = self.first(x)
        for norm, conv in zip(self.norms, self.blocks, strict=True):
            h = norm(x) * (1 + scale[..., None, None]) + shift[..., None, None]
            x = x + conv(F.silu(h))
        return self.last(F.silu(x))


def _v_prediction(model: nn.Module, batch: Any) -> Tensor:
    x, _ = batch
    t = torch.rand(len(x))
    noise = torch.randn_like(x)
    a = (0.5 * math.pi * t).cos()[:, None, None, None]
    b = (0.5 * math.pi * t).sin()[:, None, None, None]
    return F.mse_loss(model(a * x + b * noise, t), a * noise - b * x)


@bench.healthy
def diffusion_velocity_cosine() -> Any:
    return {"model": Velocity, "batch": digits(32), "step": _v_prediction, "optimizer": adamw(2e-3)}


class MaskedPatches(nn.Module):
    """Rebuilds hidden patches from the seen ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 32)
        self.mask = nn.Parameter(0.02 * torch.randn(32))
        self.place = nn.Parameter(0.02 * torch.randn(16, 32))
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 3, nn.LayerNorm(32), enable_nested_tensor=False)
        self.out = nn.Linear(32, 4)

    def forward(self, patches: Tensor, hidden: Tensor) -> Tensor:
        x = torch.where(hidden[..., None], self.mask, self.embed(patches)) + self.place
        return self.out(self.body(x))


def _rebuild(model: nn.Module, batch: Any) -> Tensor:
    x, _ = batch
    patches = F.unfold(x, 2, stride=2).transpose(1, 2)
    hidden = torch.rand(patches.shape[:2]) < 0.5
    return ((model(patches, hidden) - patches) ** 2)[hidden].mean()


@bench.healthy
def masked_patches_rebuilt() -> Any:
    return {"model": MaskedPatches, "batch": digits(32), "step": _rebuild, "optimizer": adamw(3e-3)}


def _barlow(model: nn.Module, batch: Any) -> Tensor:
    x, _ = batch
    views = [model(x + 0.3 * torch.randn_like(x)) for _ in range(2)]
    a, b = ((v - v.mean(0)) / (v.std(0) + 1e-5) for v in views)
    c = a.T @ b / len(a)
    on = torch.diagonal(c)
    return ((1 - on) ** 2).sum() + 0.02 * ((c**2).sum() - (on**2).sum())


@bench.healthy
def barlow_twins() -> Any:
    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, 16),
        ),
        "batch": digits(64),
        "step": _barlow,
        "optimizer": adamw(2e-3),
    }


class Capsules(nn.Module):
    """Primary capsules and one round of routing by agreement."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3)
        self.primary = nn.Conv2d(32, 32, 3, 2)
        self.weight = nn.Parameter(0.1 * torch.randn(32, 10, 8, 4))

    @staticmethod
    def squash(s: Tensor) -> Tensor:
        n = (s**2).sum(-1, keepdim=True)
        return n / (1 + n) * s / (n + 1e-8).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        u = self.primary(F.relu(self.conv(x))).flatten(1).view(len(x), 32, 4)
        votes = torch.einsum("nid,icod->nico", self.squash(u), self.weight)
        logits = torch.zeros(votes.shape[:3])
        for _ in range(2):
            v = self.squash((logits.softmax(2)[..., None] * votes).sum(1))
            logits = logits + (votes * v[:, None]).sum(-1).detach()
        return (v**2).sum(-1).add(1e-8).sqrt()


def _margin(v: Tensor, y: Tensor) -> Tensor:
    t = F.one_hot(y, 10).float()
    return (t * F.relu(0.9 - v) ** 2 + 0.5 * (1 - t) * F.relu(v - 0.1) ** 2).sum(1).mean()


@bench.healthy
def capsules_margin_loss() -> Any:
    return {"model": Capsules, "batch": digits(48), "loss": _margin, "optimizer": adam(3e-3)}


def _gan(model: Any, optimizer: Any, draw: Any, steps: int) -> Any:
    """Non-saturating generator and discriminator in turns; yields the generator's match."""
    for _ in range(steps):
        real = draw()
        noise = torch.randn(len(real), 8)
        optimizer.zero_grad()
        fake = model["generator"](noise)
        d_loss = (
            F.softplus(-model["critic"](real)) + F.softplus(model["critic"](fake.detach()))
        ).mean()
        d_loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        F.softplus(-model["critic"](model["generator"](noise))).mean().backward()
        for p in model["critic"].parameters():
            p.grad = None
        optimizer.step()
        yield float(((fake.mean(0) - real.mean(0)) ** 2).mean().detach())


@bench.healthy
def small_gan_in_one_optimizer() -> Any:
    def model() -> nn.Module:
        return nn.ModuleDict(
            {
                "generator": nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)),
                "critic": nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)),
            }
        )

    def step(model: Any, real: Tensor) -> Tensor:
        fake = model["generator"](torch.randn(len(real), 8))
        return (
            F.softplus(-model["critic"](real)) + F.softplus(model["critic"](fake.detach()))
        ).mean()

    return {
        "model": model,
        "batch": lambda: torch.randn(64, 2) * 0.3 + torch.tensor([1.0, -1.0]),
        "step": step,
        "loop": _gan,
        "optimizer": adam(3e-3, betas=(0.5, 0.999)),
        "in_loop": True,
    }
