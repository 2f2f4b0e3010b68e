"""Sealed and healthy: what papers' repositories train: what goes on in time."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw
from tests.zoo.recipes import next_tokens, text

bench = Bench()


class Handwriting(nn.Module):
    """A recurrence over pen offsets, a mixture of correlated Gaussians and a pen-up bit out."""

    def __init__(self, parts: int = 5) -> None:
        super().__init__()
        self.parts = parts
        self.lstm = nn.LSTM(3, 64, batch_first=True)
        self.out = nn.Linear(64, 6 * parts + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0])


@bench.healthy
def handwriting_by_mixtures_of_correlated_gaussians() -> Any:
    def batch() -> Any:
        clock = torch.arange(33) * 0.7 + 6 * torch.rand(32, 1)
        offset = torch.stack([0.6 + 0.8 * clock.cos(), clock.sin()], 2)
        offset = offset + 0.15 * torch.randn(32, 33, 2)
        strokes = torch.cat([offset, (clock.sin() > 0.95).float()[..., None]], 2)
        return strokes[:, :-1], strokes[:, 1:]

    def loss(o: Tensor, t: Tensor) -> Tensor:
        *shape, end = o.split([5, 10, 10, 5, 1], -1)
        weights, mean, log_std, rho = shape
        mean, log_std = mean.unflatten(-1, (5, 2)), log_std.unflatten(-1, (5, 2)).clamp(-5, 3)
        rho = 0.95 * torch.tanh(rho)
        z = (t[..., None, :2] - mean) * torch.exp(-log_std)
        spread = z.square().sum(-1) - 2 * rho * z.prod(-1)
        rest = 1 - rho**2
        log_p = -spread / (2 * rest) - log_std.sum(-1) - 0.5 * rest.log() - math.log(2 * math.pi)
        fit = torch.logsumexp(F.log_softmax(weights, -1) + log_p, -1).mean()
        return F.binary_cross_entropy_with_logits(end, t[..., 2:]) - fit

    return {
        "model": Handwriting,
        "batch": batch,
        "loss": loss,
        "optimizer": adam(5e-3),
        "clip": 10.0,
    }


class MinimalGru(nn.Module):
    """A recurrence without hidden state in its gates, scanned in logs over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden_and_gate = nn.Linear(width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.hidden_and_gate(x).chunk(2, -1)
        log_kept, log_new = -F.softplus(gate), -F.softplus(-gate)
        log_hidden = torch.where(hidden >= 0, (F.relu(hidden) + 0.5).log(), -F.softplus(-hidden))
        kept = log_kept.cumsum(1)
        return (kept + torch.logcumsumexp(log_new + log_hidden - kept, 1)).exp()


class ScannedLm(nn.Module):
    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(5))
        self.mixers = nn.ModuleList(MinimalGru(width) for _ in range(2))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.head = nn.Linear(width, 50, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i in range(2):
            x = x + self.mixers[i](self.norms[2 * i](x))
            x = x + self.feeds[i](self.norms[2 * i + 1](x))
        return self.head(self.norms[4](x))


@bench.healthy
def language_by_minimal_recurrences_scanned() -> Any:
    return {
        "model": ScannedLm,
        "batch": next_tokens(),
        "loss": lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()),
        "optimizer": adamw(3e-3),
        "clip": 0.5,
    }


class World(nn.Module):
    """A deterministic and a stochastic state, told by actions, corrected by what is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 48), nn.ELU(), nn.Linear(48, 24))
        self.pre = nn.Sequential(nn.Linear(6 + 2, 32), nn.ELU())
        self.cell = nn.GRUCell(32, 48)
        self.prior = nn.Sequential(nn.Linear(48, 32), nn.ELU(), nn.Linear(32, 12))
        self.posterior = nn.Sequential(nn.Linear(48 + 24, 32), nn.ELU(), nn.Linear(32, 12))
        self.decoder = nn.Sequential(nn.Linear(48 + 6, 48), nn.ELU(), nn.Linear(48, 8))
        self.reward = nn.Linear(48 + 6, 1)

    def forward(self, seen: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        h, z = torch.zeros(len(seen), 48), torch.zeros(len(seen), 6)
        outputs = []
        for view, action in zip(self.encoder(seen).unbind(1), actions.unbind(1), strict=True):
            h = self.cell(self.pre(torch.cat([z, action], 1)), h)
            prior, posterior = self.prior(h), self.posterior(torch.cat([h, view], 1))
            mean, raw = posterior.chunk(2, 1)
            z = mean + (F.softplus(raw) + 0.1) * torch.randn_like(mean)
            state = torch.cat([h, z], 1)
            outputs.append((self.decoder(state), self.reward(state), prior, posterior))
        return tuple(torch.stack(o, 1) for o in zip(*outputs, strict=True))


@bench.healthy
def world_model_balanced_divergence_free_nats() -> Any:
    def gaussian(raw: Tensor) -> torch.distributions.Normal:
        mean, spread = raw.chunk(2, -1)
        return torch.distributions.Normal(mean, F.softplus(spread) + 0.1)

    def step(model: nn.Module, batch: Any) -> Tensor:
        seen, actions, rewards = batch
        rebuilt, reward, prior, posterior = model(seen, actions)
        divergence = torch.distributions.kl_divergence
        learn = divergence(gaussian(posterior.detach()), gaussian(prior)).sum(-1).mean()
        settle = divergence(gaussian(posterior), gaussian(prior.detach())).sum(-1).mean()
        kl = 0.8 * learn.clamp(min=0.1) + 0.2 * settle.clamp(min=0.1)
        fit = 0.5 * (rebuilt - seen).square().sum(-1).mean()
        return fit + 0.5 * (reward - rewards).square().mean() + kl

    def batch() -> Any:
        actions = torch.rand(24, 12, 2) * 2 - 1
        place = torch.cumsum(0.5 * actions, 1) + 0.5 * torch.randn(24, 1, 2)
        mixing = torch.randn(2, 8, generator=torch.Generator().manual_seed(7))
        return place @ mixing / 1.5, actions, -place.norm(dim=-1, keepdim=True)

    return {
        "model": World,
        "batch": batch,
        "step": step,
        "optimizer": adam(3e-3, eps=1e-5),
        "clip": 100.0,
    }


class Unmasker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.at = nn.Embedding(51, 40), nn.Parameter(0.02 * torch.randn(17, 40))
        layer = nn.TransformerEncoderLayer(
            40, 4, 96, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 2, nn.LayerNorm(40), enable_nested_tensor=False)
        self.head = nn.Linear(40, 50)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x) + self.at))


@bench.healthy
def text_diffusion_by_masks_weighted_by_time() -> Any:
    """A share of the tokens is hidden, the loss on them divided by that share."""

    def step(model: nn.Module, tokens: Tensor) -> Tensor:
        time = (torch.rand(1) + torch.arange(len(tokens)) / len(tokens)) % 1 * 0.95 + 0.05
        hidden = torch.rand(tokens.shape) < time[:, None]
        scores = model(tokens.masked_fill(hidden, 50))
        each = F.cross_entropy(scores.transpose(1, 2), tokens, reduction="none")
        return (each * hidden / time[:, None]).mean()

    return {
        "model": Unmasker,
        "batch": lambda: text(50, 16, 64),
        "step": step,
        "optimizer": adamw(3e-3),
    }


class FlowByIteration(nn.Module):
    """Features of two frames; a recurrent cell reads their match at the guess and betters it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.InstanceNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1),
        )  # fmt: skip
        self.motion = nn.Conv2d(9 + 2, 24, 3, padding=1)
        self.gates = nn.Conv2d(24 + 24, 48, 3, padding=1)
        self.candidate = nn.Conv2d(24 + 24, 24, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 3, 1, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        a, b = self.features(first), self.features(second)
        n, _, side, _ = a.shape
        grid = torch.stack(torch.meshgrid(*[torch.arange(side)] * 2, indexing="xy"), 0).float()
        window = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).float()
        flow, h, guesses = torch.zeros(n, 2, side, side), torch.tanh(a), []
        for _ in range(3):
            flow = flow.detach()
            matches = []
            for move in window:
                at = (grid + flow + move[:, None, None]).permute(0, 2, 3, 1)
                at = 2 * at / (side - 1) - 1
                there = F.grid_sample(b, at, align_corners=True)
                matches.append((a * there).sum(1) / 24**0.5)
            x = F.relu(self.motion(torch.cat([torch.stack(matches, 1), flow], 1)))
            z, r = torch.sigmoid(self.gates(torch.cat([h, x], 1))).chunk(2, 1)
            h = (1 - z) * h + z * torch.tanh(self.candidate(torch.cat([r * h, x], 1)))
            flow = flow + self.head(h)
            guesses.append(flow)
        return guesses


@bench.healthy
def optical_flow_bettered_three_times() -> Any:
    def batch() -> Any:
        image = F.interpolate(torch.randn(8, 1, 8, 8), 20, mode="bicubic")
        moves = torch.randint(-2, 3, (8, 2))
        pairs = [
            (x[:, 2:18, 2:18], x[:, 2 - dy : 18 - dy, 2 - dx : 18 - dx])
            for x, (dx, dy) in zip(image, moves.tolist(), strict=True)
        ]
        first, second = (torch.stack(part) for part in zip(*pairs, strict=True))
        return (first, second), moves[:, :, None, None].expand(-1, -1, 16, 16).float()

    def loss(o: list[Tensor], t: Tensor) -> Tensor:
        return sum(
            (0.8 ** (len(o) - 1 - i) * F.l1_loss(f, t) for i, f in enumerate(o)), t.new_zeros(())
        )

    return {
        "model": FlowByIteration,
        "batch": batch,
        "loss": loss,
        "optimizer": adamw(2e-3, weight_decay=1e-4),
        "clip": 1.0,
    }
