"""Sealed and healthy: flows, reinforcement, contrast, distillation, physics, odd forms."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import friedman, rings, stack
from tests.zoo.recipes import digits, rows

bench = Bench()
CE = nn.CrossEntropyLoss()


class Masked(nn.Linear):
    def __init__(self, n: int, m: int, mask: Tensor) -> None:
        super().__init__(n, m)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class Autoregressive(nn.Module):
    """A masked autoregressive density of four variables."""

    def __init__(self) -> None:
        super().__init__()
        inputs, hidden = torch.arange(4), torch.arange(48) % 3
        self.first = Masked(4, 48, (hidden[:, None] >= inputs).float())
        out = torch.cat([inputs, inputs])
        self.last = Masked(48, 8, (out[:, None] > hidden).float())
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.last(F.elu(self.first(x))).chunk(2, 1)
        return (x - mean) * (-log_scale).exp(), log_scale


def _density(model: nn.Module, x: Tensor) -> Tensor:
    z, log_scale = model(x)
    return (0.5 * z**2 + log_scale + 0.919).sum(1).mean()


def banana() -> Tensor:
    x = torch.randn(128, 4)
    return torch.stack(
        [x[:, 0], x[:, 1] * 0.3 + x[:, 0] ** 2 * 0.5, x[:, 2], x[:, 3] * 0.2 + x[:, 2]], 1
    )


@bench.healthy
def masked_autoregressive_flow() -> Any:
    return {"model": Autoregressive, "batch": banana, "step": _density, "optimizer": adam(1e-2)}


@bench.healthy
def score_matching_by_denoising() -> Any:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        return ((model(x + 0.3 * noise) * 0.3 + noise) ** 2).sum(1).mean()

    return {
        "model": lambda: stack(4, 64, 64, 4, act=nn.Softplus),
        "batch": banana,
        "step": step,
        "optimizer": adam(1e-2),
    }


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.policy, self.value = nn.Linear(48, 3), nn.Linear(48, 1)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.orthogonal_(m.weight, math.sqrt(2))
                nn.init.zeros_(m.bias)
        nn.init.orthogonal_(self.policy.weight, 0.01)
        nn.init.orthogonal_(self.value.weight, 1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.policy(h), self.value(h)


def _advantage(model: nn.Module, state: Tensor) -> Tensor:
    logits, value = model(state)
    policy = torch.distributions.Categorical(logits=logits)
    action = policy.sample()
    reward = (action == state[:, :3].argmax(1)).float()
    advantage = reward[:, None] - value
    gain = policy.log_prob(action)[:, None] * advantage.detach()
    return -gain.mean() + 0.5 * (advantage**2).mean() - 0.01 * policy.entropy().mean()


@bench.healthy
def advantage_actor_critic() -> Any:
    return {
        "model": ActorCritic,
        "batch": lambda: torch.randn(64, 6),
        "step": _advantage,
        "optimizer": adam(3e-3, eps=1e-5),
        "clip": 0.5,
    }


class Twin(nn.Module):
    """Two critics and their slow copies."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(stack(8, 48, 48, 1, act=nn.ReLU) for _ in range(2))
        self.slow = copy.deepcopy(self.critics).requires_grad_(False)

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return torch.cat([c(torch.cat([s, a], 1)) for c in self.critics], 1)


def _bellman(model: Any, batch: Any) -> Tensor:
    s, a, r, n = batch
    with torch.no_grad():
        b = torch.tanh(n[:, :2])
        future = torch.cat([c(torch.cat([n, b], 1)) for c in model.slow], 1).min(1, keepdim=True)[0]
        target = r + 0.9 * future
    return F.mse_loss(model(s, a), target.expand(-1, 2))


def transitions() -> Any:
    s, a = torch.randn(96, 6), torch.rand(96, 2) * 2 - 1
    return s, a, (s[:, :2] * a).sum(1, keepdim=True), 0.9 * s + 0.3 * torch.randn(96, 6)


@bench.healthy
def twin_critics_with_slow_copies() -> Any:
    return {"model": Twin, "batch": transitions, "step": _bellman, "optimizer": adam(3e-3)}


@bench.healthy
def behavior_cloning_tanh_actions() -> Any:
    def batch() -> Any:
        s = torch.randn(64, 6)
        return s, torch.tanh(s[:, :2] - 0.5 * s[:, 2:4])

    return {
        "model": lambda: nn.Sequential(stack(6, 64, 64, 2, act=nn.ReLU), nn.Tanh()),
        "batch": batch,
        "loss": nn.SmoothL1Loss(),
        "optimizer": adam(2e-3),
    }


class Student(nn.Module):
    """A small network and the frozen large one that it is taught by."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = stack(64, 128, 10, act=nn.ReLU)
        tuned = torch.optim.Adam(self.teacher.parameters(), 5e-3)
        draw = rows("digits", 64)
        for _ in range(40):
            x, y = draw()
            tuned.zero_grad()
            F.cross_entropy(self.teacher(x), y).backward()
            tuned.step()
        self.teacher.zero_grad()
        self.teacher.requires_grad_(False).eval()
        self.student = stack(64, 24, 10, act=nn.GELU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            taught = self.teacher(x)
        return self.student(x), taught


def _distilled(outputs: Any, y: Tensor) -> Tensor:
    own, taught = outputs
    soft = F.kl_div((own / 3).log_softmax(1), (taught / 3).softmax(1), reduction="batchmean")
    return 0.7 * 9 * soft + 0.3 * F.cross_entropy(own, y)


@bench.healthy
def distilled_at_temperature_three() -> Any:
    return {"model": Student, "batch": rows("digits"), "loss": _distilled, "optimizer": adam(5e-3)}


def _supervised_contrast(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    z = F.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1)
    same = (y[:, None] == y) & ~torch.eye(len(y), dtype=torch.bool)
    s = (z @ z.T / 0.2).masked_fill(torch.eye(len(y), dtype=torch.bool), -1e9)
    log_p = s.log_softmax(1)
    return -((same * log_p).sum(1) / same.sum(1).clamp(min=1)).mean()


@bench.healthy
def supervised_contrast() -> Any:
    return {
        "model": lambda: stack(64, 96, 32, act=nn.ReLU),
        "batch": rows("digits", 64),
        "step": _supervised_contrast,
        "optimizer": adam(3e-3),
    }


class Moving(nn.Module):
    """An encoder, its exponential average, and a queue of negatives in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.query = stack(64, 64, 16, act=nn.ReLU)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(128, 16), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        q = F.normalize(self.query(x + 0.2 * torch.randn_like(x)), dim=1)
        with torch.no_grad():
            if self.training:
                for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                    slow.mul_(0.95).add_(fast, alpha=0.05)
            k = F.normalize(self.key(x + 0.2 * torch.randn_like(x)), dim=1)
        near = (q * k).sum(1, keepdim=True)
        logits = torch.cat([near, q @ self.queue.clone().T], 1) / 0.2
        self.queue = torch.cat([k, self.queue])[:128]
        return F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))


@bench.healthy
def momentum_contrast_queue() -> Any:
    return {
        "model": Moving,
        "batch": lambda: rows("digits", 32)()[0],
        "step": lambda m, x: m(x),
        "optimizer": sgd(0.05, momentum=0.9),
    }


@bench.healthy
def heat_equation_residual() -> Any:
    def step(model: nn.Module, points: Tensor) -> Tensor:
        points = points.clone().requires_grad_()
        u = model(points)
        (g,) = torch.autograd.grad(u.sum(), points, create_graph=True)
        (h,) = torch.autograd.grad(g[:, 0].sum(), points, create_graph=True)
        residual = g[:, 1] - 0.1 * h[:, 0]
        start = torch.stack([points[:, 0].detach(), torch.zeros(len(points))], 1)
        known = (model(start)[:, 0] - (math.pi * start[:, 0]).sin()) ** 2
        return (residual**2).mean() + 5 * known.mean()

    def model() -> nn.Module:
        net = stack(2, 32, 32, 32, 1, act=nn.Tanh)
        for m in net:
            if isinstance(m, nn.Linear):
                nn.init.xavier_normal_(m.weight)
                nn.init.zeros_(m.bias)
        return net

    return {
        "model": model,
        "batch": lambda: torch.rand(96, 2) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0]),
        "step": step,
        "optimizer": adam(5e-3),
    }


@bench.healthy
def hamiltonian_network() -> Any:
    def step(model: nn.Module, state: Tensor) -> Tensor:
        state = state.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(state).sum(), state, create_graph=True)
        q, p = state.detach().unbind(1)
        return ((g[:, 1] - p) ** 2 + (-g[:, 0] + q.sin()) ** 2).mean()

    return {
        "model": lambda: stack(2, 64, 64, 1, act=nn.Tanh),
        "batch": lambda: torch.randn(128, 2) * 1.5,
        "step": step,
        "optimizer": adam(5e-3),
    }


@bench.healthy
def deep_operator_network() -> Any:
    class Operator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.trunk = stack(16, 48, 24, act=nn.GELU), stack(1, 48, 24, act=nn.GELU)
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, u: Tensor, at: Tensor) -> Tensor:
            return self.branch(u) @ self.trunk(at).T + self.bias

    def batch() -> Any:
        a, b = torch.randn(48, 1), torch.randn(48, 1)
        grid, at = torch.linspace(0, 1, 16), torch.linspace(0, 1, 20)
        u = a * (2 * math.pi * grid).cos() + b
        return (u, at[:, None]), a * (2 * math.pi * at).sin() / (2 * math.pi) + b * at

    return {"model": Operator, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(3e-3)}


@bench.healthy
def sparse_embedding_bag_adagrad() -> Any:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.EmbeddingBag(60, 16, mode="mean", sparse=True)
            self.head = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.words(ids))

    def batch() -> Any:
        y = torch.randint(3, (64,))
        own = torch.randint(20, (64, 8)) + 20 * y[:, None]
        return torch.where(torch.rand(64, 8) < 0.6, own, torch.randint(60, (64, 8))), y

    return {
        "model": Bag,
        "batch": batch,
        "loss": CE,
        "optimizer": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.1),
    }


@bench.healthy
def spectral_orthogonal_lipschitz() -> Any:
    class Sort(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x.unflatten(1, (-1, 2)).unbind(2)
            return torch.stack([torch.maximum(a, b), torch.minimum(a, b)], 2).flatten(1)

    def model() -> nn.Module:
        sizes = [(2, 64), (64, 64), (64, 3)]
        layers = [parametrizations.orthogonal(nn.Linear(n, m)) for n, m in sizes]
        return nn.Sequential(layers[0], Sort(), layers[1], Sort(), layers[2])

    return {
        "model": model,
        "batch": rings,
        "loss": lambda o, t: F.cross_entropy(5 * o, t),
        "optimizer": adam(1e-2),
    }


@bench.healthy
def deep_residual_mlp_scaled_branches() -> Any:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(10, 32), nn.Linear(32, 1)
            self.branches = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(16)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for branch in self.branches:
                x = x + branch(x) / 4
            return self.last(x)

    return {"model": Deep, "batch": friedman, "loss": nn.MSELoss(), "optimizer": adam(1e-3)}


@bench.healthy
def three_heads_homoscedastic() -> Any:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
            self.digit, self.odd, self.ink = nn.Linear(64, 10), nn.Linear(64, 1), nn.Linear(64, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            h = self.body(x)
            return self.digit(h), self.odd(h)[:, 0], self.ink(h)[:, 0]

    def loss(o: Any, t: Any) -> Tensor:
        return (
            F.cross_entropy(o[0], t[0])
            + F.binary_cross_entropy_with_logits(o[1], t[1])
            + F.mse_loss(o[2], t[2])
        )

    def batch() -> Any:
        x, y = rows("digits")()
        return x, (y, (y % 2).float(), 3 * x.mean(1))

    return {"model": Heads, "batch": batch, "loss": loss, "optimizer": adam(3e-3)}


class Plane(nn.Module):
    """A spatial transformer that turns the image before it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 6))
        nn.init.zeros_(self.where[3].weight)
        self.where[3].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])
        self.read = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.where(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.read(F.grid_sample(x, grid, align_corners=False))


@bench.healthy
def spatial_transformer_starts_at_identity() -> Any:
    return {"model": Plane, "batch": digits(48), "loss": CE, "optimizer": adam(2e-3)}


@bench.healthy
def sharpness_aware_twice_a_step() -> Any:
    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Any:
        for _ in range(steps):
            x, y = draw()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            with torch.no_grad():
                norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
                moves = [0.02 * p.grad / norm for p in model.parameters()]
                for p, move in zip(model.parameters(), moves, strict=True):
                    p.add_(move)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p, move in zip(model.parameters(), moves, strict=True):
                    p.sub_(move)
            optimizer.step()
            yield float(loss.detach())

    return {
        "model": lambda: stack(64, 64, 10, act=nn.ReLU),
        "batch": rows("digits"),
        "loss": CE,
        "loop": loop,
        "optimizer": sgd(0.1, momentum=0.9),
    }


@bench.healthy
def two_optimizers_for_two_parts() -> Any:
    def loop(model: Any, optimizer: Any, draw: Any, steps: int) -> Any:
        table = torch.optim.SGD(model[0].parameters(), 0.1, momentum=0.9)
        rest = torch.optim.AdamW(model[2].parameters(), 3e-3)
        for _ in range(steps):
            x, y = draw()
            loss = F.cross_entropy(model(x), y)
            for o in (table, rest):
                o.zero_grad()
            loss.backward()
            for o in (table, rest):
                o.step()
            yield float(loss.detach())

    return {
        "model": lambda: stack(64, 64, 10, act=nn.ReLU),
        "batch": rows("digits"),
        "loss": CE,
        "loop": loop,
        "optimizer": adamw(1e-3),
    }
