"""Sealed and healthy: repositories' training loops: players, teachers, and steps by hand."""

from __future__ import annotations

import copy
import math
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.lr_scheduler import LambdaLR

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import friedman, rings, stack
from tests.zoo.recipes import blobs, digits, rows, unit_digits

bench = Bench()


def drop(_: nn.Module) -> None:
    """No optimizer from outside: the loop makes its own."""


class Translator(nn.Module):
    """A small U-shaped generator and a discriminator of patches, N(0, 0.02) as published."""

    def __init__(self) -> None:
        super().__init__()
        self.g_down = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2))
        self.g_inner = nn.Sequential(
            nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32),
        )  # fmt: skip
        self.g_up = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
        self.d = nn.Sequential(
            nn.Conv2d(2, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1),
            nn.BatchNorm2d(64), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 3, 1, 1),
        )  # fmt: skip
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(m.weight, 0.0, 0.02)
                nn.init.zeros_(m.bias)
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.weight, 1.0, 0.02)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        down = self.g_down(x)
        return self.g_up(torch.cat([down, self.g_inner(down)], 1))


@bench.healthy(in_loop=True)
def squares_to_photographs_adversary_and_hundredfold_l1() -> Any:
    def batch() -> Any:
        photograph, mask = blobs(16)
        return 2.0 * mask[:, None] - 1, torch.tanh(photograph)

    def loop(model: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        own = [p for n, p in model.named_parameters() if n.startswith("g_")]
        g_optimizer = torch.optim.Adam(own, 5e-4, betas=(0.5, 0.999))
        d_optimizer = torch.optim.Adam(model.d.parameters(), 5e-4, betas=(0.5, 0.999))
        bce = nn.BCEWithLogitsLoss()
        for _ in range(steps):
            x, y = draw()
            fake = model(x)
            model.d.requires_grad_(True)
            d_optimizer.zero_grad()
            wrong = model.d(torch.cat([x, fake.detach()], 1))
            right = model.d(torch.cat([x, y], 1))
            d_loss = bce(wrong, torch.zeros_like(wrong)) + bce(right, torch.ones_like(right))
            (0.5 * d_loss).backward()
            d_optimizer.step()
            model.d.requires_grad_(False)
            g_optimizer.zero_grad()
            judged = model.d(torch.cat([x, fake], 1))
            g_loss = bce(judged, torch.ones_like(judged)) + 100 * F.l1_loss(fake, y)
            g_loss.backward()
            g_optimizer.step()
            yield g_loss.item()

    return {"model": Translator, "batch": batch, "optimizer": drop, "loop": loop}


class Spectral(nn.Module):
    """A generator with BatchNorm against a critic of spectrally normalized convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(16, 64 * 4), nn.Unflatten(1, (64, 2, 2)),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.critic = nn.Sequential(
            spectral_norm(nn.Conv2d(1, 32, 3, 1, 1)), nn.LeakyReLU(0.1),
            spectral_norm(nn.Conv2d(32, 64, 4, 2, 1)), nn.LeakyReLU(0.1),
            nn.Flatten(), spectral_norm(nn.Linear(64 * 16, 1)),
        )  # fmt: skip


@bench.healthy(in_loop=True)
def digits_drawn_against_a_spectral_critic() -> Any:
    """Hinge losses, two steps of the critic for one of the generator."""

    def loop(model: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        rates = {"lr": 1e-3, "betas": (0.0, 0.9)}
        g_optimizer = torch.optim.Adam(model.generator.parameters(), **rates)
        d_optimizer = torch.optim.Adam(model.critic.parameters(), **rates)
        for _ in range(steps):
            for _ in range(2):
                real = 2 * draw() - 1
                with torch.no_grad():
                    fake = model.generator(torch.randn(64, 16))
                loss = F.relu(1 - model.critic(real)).mean()
                loss = loss + F.relu(1 + model.critic(fake)).mean()
                d_optimizer.zero_grad()
                loss.backward()
                d_optimizer.step()
            fake = model.generator(torch.randn(64, 16))
            g_optimizer.zero_grad()
            (-model.critic(fake).mean()).backward()
            g_optimizer.step()
            # Progress of the game: how far the mean drawn image is from the mean digit.
            yield float((fake.detach().mean(0) - real.mean(0)).square().mean())

    return {"model": Spectral, "batch": unit_digits(64), "optimizer": drop, "loop": loop}


@bench.healthy(in_loop=True)
def wasserstein_with_gradient_penalty_five_to_one() -> Any:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g = stack(2, 64, 64, 2, act=nn.ReLU)
            self.d = stack(2, 64, 64, 1, act=nn.ReLU)

    def loop(model: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        g_optimizer = torch.optim.Adam(model.g.parameters(), 5e-4, betas=(0.0, 0.9))
        d_optimizer = torch.optim.Adam(model.d.parameters(), 2e-3, betas=(0.0, 0.9))
        for _ in range(steps):
            for _ in range(5):
                real, _ = draw()
                fake = model.g(torch.randn(len(real), 2)).detach()
                part = torch.rand(len(real), 1)
                between = (part * real + (1 - part) * fake).requires_grad_()
                slope = torch.autograd.grad(model.d(between).sum(), between, create_graph=True)[0]
                penalty = (slope.norm(dim=1) - 1).square().mean()
                d_loss = model.d(fake).mean() - model.d(real).mean() + 10 * penalty
                d_optimizer.zero_grad()
                d_loss.backward()
                d_optimizer.step()
            g_optimizer.zero_grad()
            made = model.g(torch.randn(len(real), 2))
            (-model.d(made).mean()).backward()
            g_optimizer.step()
            made = made.detach()
            distance = 2 * torch.cdist(made, real).mean() - torch.cdist(made, made).mean()
            yield float(distance - torch.cdist(real, real).mean())

    return {"model": Pair, "batch": lambda: rings(128), "optimizer": drop, "loop": loop}


class Policies(nn.Module):
    """An actor, a critic, and the slow copies of both."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(
            nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1), nn.Tanh()
        )
        self.critic = stack(3, 48, 48, 1, act=nn.ReLU)
        nn.init.uniform_(self.actor[4].weight, -3e-3, 3e-3)
        nn.init.uniform_(self.critic[4].weight, -3e-3, 3e-3)
        self.slow_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)


@bench.healthy(in_loop=True)
def cart_pushed_by_deterministic_policy_gradients() -> Any:
    """A cart to be brought to rest in the middle; replay, noise, slow targets."""

    def push(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        place, speed = state.unbind(-1)
        speed = 0.9 * speed + 0.3 * action[..., 0]
        place = (place + 0.3 * speed).clamp(-2, 2)
        return torch.stack([place, speed], -1), -(place**2) - 0.1 * speed**2

    def loop(model: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        a_optimizer = torch.optim.Adam(model.actor.parameters(), 1e-3)
        c_optimizer = torch.optim.Adam(model.critic.parameters(), 3e-3, weight_decay=1e-2)
        memory: deque[Any] = deque(maxlen=5000)
        state = draw()
        for number in range(steps + 20):
            with torch.no_grad():
                action = (model.actor(state) + 0.3 * torch.randn(len(state), 1)).clamp(-1, 1)
            after, reward = push(state, action)
            memory.extend(zip(state, action, reward, after, strict=True))
            state = after if number % 10 else draw()
            if number < 20:
                continue
            s, a, r, n = (torch.stack(x) for x in zip(*random.sample(memory, 128), strict=True))
            with torch.no_grad():
                future = model.slow_critic(torch.cat([n, model.slow_actor(n)], 1))
                wanted = r[:, None] + 0.9 * future
            loss = F.mse_loss(model.critic(torch.cat([s, a], 1)), wanted)
            c_optimizer.zero_grad()
            loss.backward()
            c_optimizer.step()
            a_optimizer.zero_grad()
            (-model.critic(torch.cat([s, model.actor(s)], 1)).mean()).backward()
            a_optimizer.step()
            with torch.no_grad():
                for slow, fast in (("slow_actor", "actor"), ("slow_critic", "critic")):
                    pairs = zip(
                        getattr(model, slow).parameters(),
                        getattr(model, fast).parameters(),
                        strict=True,
                    )
                    for old, new in pairs:
                        old.lerp_(new, 0.005)
            yield loss.item()

    return {
        "model": Policies,
        "batch": lambda: 2 * torch.rand(16, 2) - 1,
        "optimizer": drop,
        "loop": loop,
    }


class Hinted(nn.Module):
    """A thin student and a matcher of its middle to the middle of its teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.upper = nn.Linear(32, 10)
        self.match = nn.Linear(32, 128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.lower(x)
        return self.upper(h), self.match(h)


@bench.healthy(in_loop=True)
def thin_student_with_hints_from_the_middle() -> Any:
    """The teacher is trained first, then kept beside the loop, not in the model."""

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        lower = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        upper = nn.Linear(128, 10)
        own = torch.optim.Adam([*lower.parameters(), *upper.parameters()], 5e-3)
        for _ in range(60):
            x, y = draw()
            own.zero_grad()
            F.cross_entropy(upper(lower(x)), y).backward()
            own.step()
        for _ in range(steps):
            x, y = draw()
            with torch.no_grad():
                hint = lower(x)
                soft = F.softmax(upper(hint) / 4, 1)
            scores, matched = model(x)
            taught = F.kl_div(F.log_softmax(scores / 4, 1), soft, reduction="batchmean") * 16
            loss = 0.1 * F.cross_entropy(scores, y) + 0.9 * taught + F.mse_loss(matched, hint)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    return {"model": Hinted, "batch": rows("digits", 64), "optimizer": adam(5e-3), "loop": loop}


@bench.healthy(in_loop=True)
def pseudo_labels_above_a_threshold() -> Any:
    """Few labels; what the weak view is sure of is the label of the strong view."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.LeakyReLU(0.1),
            nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    def loop(net: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        average = copy.deepcopy(net).requires_grad_(False)
        scheduler = LambdaLR(optimizer, lambda s: math.cos(7 * math.pi * s / (16 * steps)))
        for _ in range(steps):
            (x, y), (unlabeled, _) = draw()
            weak = unlabeled.roll(int(torch.randint(-1, 2, ())), 3)
            strong = unlabeled + 0.5 * torch.randn_like(unlabeled)
            strong = strong * (torch.rand(len(strong), 1, 8, 8) > 0.2)
            scores, weak_scores, strong_scores = net(torch.cat([x, weak, strong])).split(
                [len(x), len(weak), len(strong)]
            )
            sure, guess = weak_scores.detach().softmax(1).max(1)
            each = F.cross_entropy(strong_scores, guess, reduction="none")
            loss = F.cross_entropy(scores, y) + (each * (sure > 0.95)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                    slow.mul_(0.99).add_(fast, alpha=0.01)
            yield loss.item()

    return {
        "model": model,
        "batch": lambda: (digits(32)(), digits(96)()),
        "optimizer": sgd(0.03, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "loop": loop,
    }


@bench.healthy(in_loop=True)
def self_distillation_centered_and_sharpened() -> Any:
    """Student and averaged teacher; prototypes of unit length, the last layer held at first."""

    def net() -> nn.Module:
        last = nn.utils.parametrizations.weight_norm(nn.Linear(24, 48, bias=False))
        last.parametrizations.weight.original0.data.fill_(1)
        last.parametrizations.weight.original0.requires_grad_(False)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 96), nn.GELU(),
            nn.Linear(96, 24), Unit(), last,
        )  # fmt: skip

    class Unit(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(x, dim=-1)

    def loop(student: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        teacher = copy.deepcopy(student).requires_grad_(False)
        with torch.no_grad():
            center = teacher(draw()[0]).mean(0)
        for number in range(steps):
            x, _ = draw()
            views = [x + 0.3 * torch.randn_like(x) for _ in range(2)]
            with torch.no_grad():
                raw = [teacher(v) for v in views]
            taught = [F.softmax((t - center) / 0.04, 1) for t in raw]
            said = [F.log_softmax(student(v) / 0.1, 1) for v in views]
            crossed = [(taught[0] * said[1]).sum(1), (taught[1] * said[0]).sum(1)]
            loss = -torch.stack(crossed).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 3.0)
            if number < 3:
                student[-1].parametrizations.weight.original1.grad = None
            optimizer.step()
            with torch.no_grad():
                center = 0.9 * center + 0.1 * torch.cat(raw).mean(0)
                for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                    slow.lerp_(fast, 0.01)
            yield loss.item()

    return {"model": net, "batch": digits(128), "optimizer": adamw(2e-3), "loop": loop}


@bench.healthy
def looks_ahead_and_comes_half_way_back() -> Any:
    """Slow weights by hand around Adam, every five steps."""

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        slow = [p.detach().clone() for p in model.parameters()]
        for number in range(1, steps + 1):
            x, y = draw()
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            if number % 5 == 0:
                with torch.no_grad():
                    for kept, p in zip(slow, model.parameters(), strict=True):
                        kept += 0.5 * (p - kept)
                        p.copy_(kept)
            yield loss.item()

    return {
        "model": lambda: stack(10, 64, 64, 1, act=nn.ReLU),
        "batch": lambda: friedman(96),
        "loss": nn.MSELoss(),
        "optimizer": adam(5e-3),
        "loop": loop,
    }


@bench.healthy(in_loop=True)
def poisson_equation_adam_then_lbfgs() -> Any:
    """Thirty steps of Adam, then a second optimizer that evaluates its closure many times."""

    def loss_of(model: nn.Module, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        u = model(x)
        du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
        ddu = torch.autograd.grad(du.sum(), x, create_graph=True)[0]
        ends = model(torch.tensor([[-1.0], [1.0]]))
        return (
            ddu + math.pi**2 * torch.sin(math.pi * x)
        ).square().mean() + 10 * ends.square().mean()

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        x = draw()
        for _ in range(30):
            optimizer.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            optimizer.step()
            yield loss.item()
        second = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            second.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            return loss

        for _ in range(steps - 30):
            yield float(second.step(closure).detach())

    return {
        "model": lambda: stack(1, 32, 32, 1, act=nn.Tanh),
        "batch": lambda: torch.linspace(-1, 1, 64)[:, None],
        "optimizer": adam(1e-2),
        "loop": loop,
    }


@bench.healthy
def robust_by_projected_ascent_on_the_inputs() -> Any:
    """Five small steps up in the input, then one of the weights on what came out."""

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        for _ in range(steps):
            x, y = draw()
            model.eval()
            moved = (x + 0.2 * (2 * torch.rand_like(x) - 1)).detach()
            for _ in range(5):
                moved.requires_grad_()
                up = torch.autograd.grad(F.cross_entropy(model(moved), y), moved)[0]
                moved = moved.detach() + 0.08 * up.sign()
                moved = torch.clamp(moved, x - 0.2, x + 0.2)
            model.train()
            optimizer.zero_grad()
            loss = F.cross_entropy(model(moved), y)
            loss.backward()
            optimizer.step()
            yield loss.item()

    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10),
        ),
        "batch": digits(48),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(2e-3),
        "loop": loop,
    }  # fmt: skip


@bench.healthy(in_loop=True)
def gradients_of_three_tasks_projected() -> Any:
    """The gradients of tasks that conflict are projected on each other, and set by hand."""

    class Tasks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU())
            self.heads = nn.ModuleList([nn.Linear(48, 10), nn.Linear(48, 2), nn.Linear(48, 1)])

        def forward(self, x: Tensor) -> list[Tensor]:
            h = self.body(x)
            return [head(h) for head in self.heads]

    def loop(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        shared = list(model.body.parameters())
        for _ in range(steps):
            x, y = draw()
            digit, parity, ink = model(x)
            losses = [
                F.cross_entropy(digit, y),
                F.cross_entropy(parity, y % 2),
                F.mse_loss(ink[:, 0], (x.abs().mean(1) - 0.7) / 0.15),
            ]
            optimizer.zero_grad()
            flat = []
            for loss, head in zip(losses, model.heads, strict=True):
                both = torch.autograd.grad(loss, [*shared, *head.parameters()], retain_graph=True)
                flat.append(torch.cat([g.flatten() for g in both[: len(shared)]]))
                for p, g in zip(head.parameters(), both[len(shared) :], strict=True):
                    p.grad = g
            projected = []
            for i, g in enumerate(flat):
                mine = g.clone()
                for j in random.sample([0, 1, 2], 3):
                    along = mine @ flat[j]
                    if j != i and along < 0:
                        mine = mine - along / flat[j].square().sum() * flat[j]
                projected.append(mine)
            total = torch.stack(projected).sum(0)
            for p, g in zip(shared, total.split([p.numel() for p in shared]), strict=True):
                p.grad = g.view_as(p).clone()
            optimizer.step()
            yield float(sum(loss.item() for loss in losses))

    return {"model": Tasks, "batch": rows("digits", 64), "optimizer": adam(2e-3), "loop": loop}


class Cell(nn.Module):
    """A choice among operations, mixed by a softmax over its architecture's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.edges = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Identity(),
                    nn.MaxPool2d(3, 1, 1),
                    nn.Sequential(
                        nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
                    ),
                    nn.Sequential(
                        nn.ReLU(),
                        nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False),
                        nn.BatchNorm2d(16),
                    ),
                ]
            )
            for _ in range(3)
        )
        self.alphas = nn.Parameter(1e-3 * torch.randn(3, 4))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for edge, weights in zip(self.edges, self.alphas.softmax(-1), strict=True):
            x = sum((w * op(x) for w, op in zip(weights, edge, strict=True)), torch.zeros(()))
        return self.head(x.mean((2, 3)))


@bench.healthy(in_loop=True)
def architecture_searched_by_two_optimizers_in_turn() -> Any:
    """The architecture learns on validation batches, the weights on training batches."""

    def loop(model: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        weights = [p for n, p in model.named_parameters() if n != "alphas"]
        w_optimizer = torch.optim.SGD(weights, 0.05, momentum=0.9, weight_decay=3e-4)
        a_optimizer = torch.optim.Adam([model.alphas], 3e-3, betas=(0.5, 0.999), weight_decay=1e-3)
        for _ in range(steps):
            x, y = draw()
            a_optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            a_optimizer.step()
            x, y = draw()
            w_optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 5.0)
            w_optimizer.step()
            yield loss.item()

    return {"model": Cell, "batch": digits(48), "optimizer": drop, "loop": loop}
