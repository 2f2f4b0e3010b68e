"""Sealed and healthy: what papers' repositories train: densities, scenes, physics."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam
from tests.zoo.recipes import unit_digits

bench = Bench()


@bench.healthy
def survival_by_hazards_of_intervals() -> Any:
    """Who survives which of twelve intervals; those who left the study count until they left."""

    def batch() -> Any:
        x = torch.randn(128, 10)
        rate = torch.exp(0.8 * x[:, 0] - 0.6 * x[:, 1])
        time = torch.distributions.Exponential(rate).sample() * 6
        left = 4 + 8 * torch.rand(128)
        last = torch.minimum(time, left).clamp(max=11.9).long()
        died = (time <= left) & (time < 11.9)
        return x, (last, died.float())

    def loss(o: Tensor, t: Any) -> Tensor:
        last, died = t
        event = F.one_hot(last, 12) * died[:, None]
        at_risk = torch.arange(12) <= last[:, None]
        each = F.binary_cross_entropy_with_logits(o, event, reduction="none")
        return (each * at_risk).sum(1).mean()

    return {
        "model": lambda: nn.Sequential(
            nn.Linear(10, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 32),
            nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 12),
        ),
        "batch": batch,
        "loss": loss,
        "optimizer": adam(1e-2),
    }  # fmt: skip


class Flow(nn.Module):
    """Activations normalized by the first batch, a rotation, a coupling whose end is zero."""

    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self.bias, self.log_scale = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("ready", torch.tensor(False))
        self.turn = nn.Parameter(torch.linalg.qr(torch.randn(n, n))[0])
        self.net = nn.Sequential(
            nn.Linear(n // 2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, n)
        )
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.ready:
            with torch.no_grad():
                self.bias.copy_(-x.mean(0))
                self.log_scale.copy_(-(x.std(0) + 1e-6).log())
                self.ready.fill_(True)
        x = (x + self.bias) * self.log_scale.exp()
        x = x @ self.turn
        kept, changed = x.chunk(2, 1)
        shift, raw = self.net(kept).chunk(2, 1)
        scale = torch.sigmoid(raw + 2)
        log_det = self.log_scale.sum() + torch.linalg.slogdet(self.turn)[1] + scale.log().sum(1)
        return torch.cat([kept, (changed + shift) * scale], 1), log_det


class Glow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flows = nn.ModuleList(Flow() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x))
        for flow in self.flows:
            x, log_det = flow(x)
            total = total + log_det
        return (-0.5 * x.square() - 0.5 * math.log(2 * math.pi)).sum(1) + total


@bench.healthy
def glow_steps_with_activation_normalization() -> Any:
    def batch() -> Tensor:
        a, b = torch.randn(128, 2), torch.randn(128, 2)
        return torch.cat([a, 0.5 * a**2 + 0.2 * b, b + 0.1 * torch.randn(128, 2)], 1)

    return {
        "model": Glow,
        "batch": batch,
        "step": lambda m, x: -m(x).mean(),
        "optimizer": adam(2e-3),
    }


@cache
def picture(side: int = 48) -> Tensor:
    """A picture in [0, 1] with edges and texture, three channels."""
    grid = torch.linspace(-1, 1, side)
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    disc = ((x**2 + y**2) < 0.4).float()
    stripes = 0.5 + 0.5 * torch.sin(12 * x + 5 * y)
    return torch.stack([0.2 + 0.7 * disc, stripes * (1 - disc), 0.5 + 0.4 * y * disc])


class HashGrid(nn.Module):
    """Features in tables of several resolutions, hashed and interpolated, and a small network."""

    def __init__(self, levels: int = 5, size: int = 512) -> None:
        super().__init__()
        self.size, self.sides = size, [int(4 * 1.7**k) for k in range(levels)]
        self.tables = nn.ModuleList(nn.Embedding(size, 2) for _ in range(levels))
        for table in self.tables:
            nn.init.uniform_(table.weight, -1e-4, 1e-4)
        self.net = nn.Sequential(nn.Linear(2 * levels, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, at: Tensor) -> Tensor:
        features = []
        for side, table in zip(self.sides, self.tables, strict=True):
            scaled = at * side
            low = scaled.floor().long()
            part = scaled - low
            mixed = torch.zeros(len(at), 2)
            for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
                place = low + torch.tensor(corner)
                index = (place[:, 0] ^ (place[:, 1] * 2654435761)) % self.size
                weight = torch.where(torch.tensor(corner) == 1, part, 1 - part).prod(1)
                mixed = mixed + weight[:, None] * table(index)
            features.append(mixed)
        return torch.sigmoid(self.net(torch.cat(features, 1)))


@bench.healthy
def picture_in_hashed_tables() -> Any:
    def batch() -> Any:
        at = torch.rand(1024, 2)
        place = (at * 48).long()
        return at, picture()[:, place[:, 0], place[:, 1]].T

    return {
        "model": HashGrid,
        "batch": batch,
        "loss": nn.MSELoss(),
        "optimizer": adam(1e-2, betas=(0.9, 0.99), eps=1e-15),
    }


class Splats(nn.Module):
    """Eighty colored Gaussians in the plane, drawn from front to back."""

    def __init__(self, count: int = 80) -> None:
        super().__init__()
        self.at = nn.Parameter(2 * torch.rand(count, 2) - 1)
        self.log_size = nn.Parameter(torch.full((count, 2), math.log(0.15)))
        self.angle = nn.Parameter(torch.zeros(count))
        self.color = nn.Parameter(torch.zeros(count, 3))
        self.opacity = nn.Parameter(torch.full((count,), -1.0))

    def forward(self, grid: Tensor) -> Tensor:
        gap = grid[:, None] - self.at
        c, s = self.angle.cos(), self.angle.sin()
        turned = torch.stack([c * gap[..., 0] + s * gap[..., 1], c * gap[..., 1] - s * gap[..., 0]])
        size = self.log_size.exp().T[:, None]
        alpha = torch.sigmoid(self.opacity) * torch.exp(-0.5 * (turned / size).square().sum(0))
        through = torch.cumprod(1 - alpha, 1)
        seen = alpha * torch.cat([torch.ones(len(grid), 1), through[:, :-1]], 1)
        return seen @ torch.sigmoid(self.color)


@bench.healthy
def picture_of_gaussian_splats() -> Any:
    """Each kind of parameter has its own rate."""

    def batch() -> Any:
        grid = torch.linspace(-1, 1, 48)
        places = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), 2).flatten(0, 1)
        return places, picture().flatten(1).T

    def optimizer(model: Any) -> torch.optim.Optimizer:
        rates = {"at": 5e-3, "log_size": 1e-2, "angle": 1e-2, "color": 5e-2, "opacity": 5e-2}
        groups = [{"params": [getattr(model, k)], "lr": lr, "name": k} for k, lr in rates.items()]
        return torch.optim.Adam(groups, eps=1e-15)

    def loss(o: Tensor, t: Tensor) -> Tensor:
        return 0.8 * F.l1_loss(o, t) + 0.2 * F.mse_loss(o, t)

    return {"model": Splats, "batch": batch, "loss": loss, "optimizer": optimizer}


class Codebook(nn.Module):
    """Codes drawn from the first batch, then averages of what is assigned to them."""

    def __init__(self, codes: int = 32, width: int = 16) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(codes, width))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", torch.zeros(codes, width))
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if not self.ready:
            drawn = z.detach()[torch.randperm(len(z))[: len(self.codes)]]
            self.codes.copy_(drawn)
            self.sums.copy_(drawn)
            self.ready.fill_(True)
        nearest = torch.cdist(z.detach(), self.codes).argmin(1)
        quantized = self.codes[nearest]
        if self.training:
            chosen = F.one_hot(nearest, len(self.codes)).float()
            with torch.no_grad():
                self.counts.mul_(0.9).add_(chosen.sum(0), alpha=0.1)
                self.sums.mul_(0.9).add_(chosen.T @ z, alpha=0.1)
                total = self.counts.sum()
                smooth = (self.counts + 1e-5) / (total + 32e-5) * total
                self.codes.copy_(self.sums / smooth[:, None])
        commitment = F.mse_loss(z, quantized)
        return z + (quantized - z).detach(), commitment


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 16, 1),
        )  # fmt: skip
        self.book = Codebook()
        self.decoder = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        flat, commitment = self.book(z.permute(0, 2, 3, 1).flatten(0, 2))
        z = flat.view(len(x), *z.shape[2:], 16).permute(0, 3, 1, 2)
        return self.decoder(z), commitment


@bench.healthy
def quantized_digits_codebook_of_averages() -> Any:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        x = x - 0.5
        rebuilt, commitment = model(x)
        return F.mse_loss(rebuilt, x) + 0.25 * commitment

    return {"model": Quantized, "batch": unit_digits(64), "step": step, "optimizer": adam(2e-3)}


class Oscillator(nn.Module):
    """A small network of time and the friction to be found."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
        )
        self.mu = nn.Parameter(torch.zeros(()))

    def forward(self, t: Tensor) -> Tensor:
        return self.net(t)


@bench.healthy
def oscillator_with_unknown_friction() -> Any:
    """Few noisy measurements and the equation's residual; a stiff spring, hence its weight."""
    omega, friction = 20.0, 4.0

    def exact(t: Tensor) -> Tensor:
        w = math.sqrt(omega**2 - (friction / 2) ** 2)
        return torch.exp(-friction / 2 * t) * torch.cos(w * t)

    def batch() -> Any:
        t = torch.rand(40, 1) * 0.4
        return t, exact(t) + 0.02 * torch.randn(40, 1)

    def step(model: Any, batch: Any) -> Tensor:
        t = torch.linspace(0, 0.4, 30)[:, None].requires_grad_()
        x = model(t)
        dx = torch.autograd.grad(x, t, torch.ones_like(x), create_graph=True)[0]
        ddx = torch.autograd.grad(dx, t, torch.ones_like(dx), create_graph=True)[0]
        residual = ddx + model.mu * dx + omega**2 * x
        return 1e-4 * residual.square().mean() + F.mse_loss(model(batch[0]), batch[1])

    return {"model": Oscillator, "batch": batch, "step": step, "optimizer": adam(1e-2)}


class Hourglass(nn.Module):
    """A deep image prior: down, up, joined by a narrow skip, upsampled bilinearly."""

    def __init__(self) -> None:
        super().__init__()

        def block(n: int, m: int, stride: int = 1) -> nn.Module:
            return nn.Sequential(
                nn.ReflectionPad2d(1), nn.Conv2d(n, m, 3, stride), nn.BatchNorm2d(m),
                nn.LeakyReLU(0.2),
            )  # fmt: skip

        self.skip = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2))
        self.down = nn.Sequential(block(8, 24, 2), block(24, 24), block(24, 32, 2), block(32, 32))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), block(32, 24),
            nn.Upsample(scale_factor=2, mode="bilinear"),
        )  # fmt: skip
        self.end = nn.Sequential(
            nn.BatchNorm2d(28), block(28, 24), nn.Conv2d(24, 3, 1), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.end(torch.cat([self.up(self.down(z)), self.skip(z)], 1))


@bench.healthy
def deep_image_prior_of_one_noisy_picture() -> Any:
    """The input is one fixed noise, jittered a little at each step; the target one picture."""

    @cache
    def fixed() -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(4)
        noisy = picture() + 0.1 * torch.randn(picture().shape, generator=random)
        return 0.1 * torch.rand(1, 8, 48, 48, generator=random), noisy[None]

    def batch() -> Any:
        z, noisy = fixed()
        return z + torch.randn_like(z) / 30, noisy

    return {"model": Hourglass, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(1e-2)}


class Preconditioned(nn.Module):
    """A denoiser whose skip, input and output are scaled by the noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(65, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 64)
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        total = (sigma**2 + 0.25).sqrt()
        output = self.net(torch.cat([x / total, sigma.log() / 4], 1))
        return 0.25 / total**2 * x + 0.5 * sigma / total * output


@bench.healthy
def denoiser_preconditioned_by_noise_level() -> Any:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        x = x.flatten(1) - 0.35
        sigma = torch.exp(1.2 * torch.randn(len(x), 1) - 1.2)
        denoised = model(x + sigma * torch.randn_like(x), sigma)
        weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
        return (weight * (denoised - x).square()).mean()

    return {
        "model": Preconditioned,
        "batch": unit_digits(128),
        "step": step,
        "optimizer": adam(2e-3),
    }
