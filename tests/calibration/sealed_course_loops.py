"""Sealed and healthy: courses' training loops, each written out."""

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
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_courses import words
from tests.zoo.recipes import digits

bench = Bench()


class NameMlp(nn.Module):
    """Three letters in, one out: embeddings, a batch normalization by hand, small last weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(27, 8))
        self.w1 = nn.Parameter(torch.randn(24, 64) * (5 / 3) / 24**0.5)
        self.gain = nn.Parameter(torch.ones(1, 64))
        self.shift = nn.Parameter(torch.zeros(1, 64))
        self.w2 = nn.Parameter(torch.randn(64, 27) * 0.01)
        self.b2 = nn.Parameter(torch.zeros(27))
        self.register_buffer("mean", torch.zeros(1, 64))
        self.register_buffer("std", torch.ones(1, 64))

    def forward(self, x: Tensor) -> Tensor:
        h = self.table[x].flatten(1) @ self.w1
        if self.training:
            mean, std = h.mean(0, keepdim=True), h.std(0, keepdim=True)
            with torch.no_grad():
                self.mean = 0.99 * self.mean + 0.01 * mean
                self.std = 0.99 * self.std + 0.01 * std
        else:
            mean, std = self.mean, self.std
        h = self.gain * (h - mean) / (std + 1e-5) + self.shift
        return torch.tanh(h) @ self.w2 + self.b2


@bench.healthy(in_loop=True)
def names_without_an_optimizer() -> Any:
    """Weights are moved by hand, as in lectures that build everything up."""

    def batch() -> Any:
        letters, _ = words(64)
        padded = F.pad(letters + 1, (3, 1))
        at = torch.randint(padded.shape[1] - 3, (64,))
        windows = torch.stack([row[i : i + 4] for row, i in zip(padded, at.tolist(), strict=True)])
        return windows[:, :3], windows[:, 3]

    def loop(model: nn.Module, _: Any, draw: Any, steps: int) -> Iterator[float]:
        for _ in range(steps):
            x, y = draw()
            loss = F.cross_entropy(model(x), y)
            for p in model.parameters():
                p.grad = None
            loss.backward()
            for p in model.parameters():
                p.data += -0.2 * p.grad
            yield loss.item()

    return {"model": NameMlp, "batch": batch, "optimizer": lambda m: None, "loop": loop}


class FromScratch(nn.Module):
    """A recurrent language model of bare parameters that is handed its state."""

    def __init__(self, letters: int = 26, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = hidden
        self.w_xh = nn.Parameter(torch.randn(letters, hidden) * 0.1)
        self.w_hh = nn.Parameter(torch.randn(hidden, hidden) * 0.1)
        self.b_h = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Linear(hidden, letters)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for step in x.unbind(1):
            state = torch.tanh(self.w_xh[step] + state @ self.w_hh + self.b_h)
            outputs.append(self.out(state))
        return torch.stack(outputs, 1), state


@bench.healthy(in_loop=True)
def truncated_backpropagation_carries_its_state() -> Any:
    """Consecutive windows of one text; the state is carried on, detached."""

    def batch() -> Tensor:
        letters, _ = words(16 * 40, 4)
        return letters.reshape(16, -1)

    def loop(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        text = draw()
        state = torch.zeros(16, model.hidden)
        for number in range(steps):
            at = number * 7
            x, y = text[:, at : at + 7], text[:, at + 1 : at + 8]
            state = state.detach()
            logits, state = model(x, state)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield loss.item()

    return {"model": FromScratch, "batch": batch, "optimizer": sgd(1.0), "loop": loop}


@bench.healthy(in_loop=True)
def first_gan_on_a_ring() -> Any:
    """Generator and discriminator of linear layers, two optimizers, binary cross-entropy."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g = nn.Sequential(
                nn.Linear(4, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2),
                nn.Linear(48, 2),
            )  # fmt: skip
            self.d = nn.Sequential(
                nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2),
                nn.Linear(48, 1), nn.Sigmoid(),
            )  # fmt: skip

    def ring() -> Tensor:
        angle = 2 * math.pi * torch.rand(128)
        return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(128, 2)

    def loop(model: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        g_optimizer = torch.optim.Adam(model.g.parameters(), 1e-3, betas=(0.5, 0.999))
        d_optimizer = torch.optim.Adam(model.d.parameters(), 1e-3, betas=(0.5, 0.999))
        criterion = nn.BCELoss()
        ones, zeros = torch.ones(128, 1), torch.zeros(128, 1)
        for _ in range(steps):
            real = draw()
            d_optimizer.zero_grad()
            fake = model.g(torch.randn(128, 4))
            d_loss = criterion(model.d(real), ones) + criterion(model.d(fake.detach()), zeros)
            d_loss.backward()
            d_optimizer.step()
            g_optimizer.zero_grad()
            criterion(model.d(fake), ones).backward()
            g_optimizer.step()
            # Neither player's loss tells progress; the energy distance to real samples does.
            made = fake.detach()
            between = 2 * torch.cdist(made, real).mean()
            yield float(between - torch.cdist(made, made).mean() - torch.cdist(real, real).mean())

    return {"model": Pair, "batch": ring, "optimizer": lambda m: None, "loop": loop}


class Corridor:
    """A walk on a line of eleven places; it pays to stay in the middle, the ends end it."""

    def __init__(self) -> None:
        self.place = 5

    def reset(self) -> Tensor:
        self.place = random.randint(2, 8)
        return self.state()

    def state(self) -> Tensor:
        return torch.tensor([(self.place - 5) / 5, abs(self.place - 5) / 5])

    def step(self, action: int) -> tuple[Tensor, float, bool]:
        self.place += 1 if action else -1
        done = self.place in (0, 10)
        return self.state(), 1 - abs(self.place - 5) / 2.5, done


@bench.healthy(in_loop=True)
def corridor_dqn_replay_and_soft_target() -> Any:
    def act(net: nn.Module, state: Tensor, epsilon: float) -> int:
        if random.random() < epsilon:
            return random.randrange(2)
        with torch.no_grad():
            return int(net(state).argmax())

    def loop(policy: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        target = copy.deepcopy(policy)
        memory: deque[Any] = deque(maxlen=2000)
        world = draw()
        state = world.reset()

        def move(epsilon: float) -> None:
            nonlocal state
            action = act(policy, state, epsilon)
            after, reward, done = world.step(action)
            memory.append((state, action, reward, after, float(done)))
            state = world.reset() if done else after

        for _ in range(200):
            move(1.0)
        for number in range(steps):
            for _ in range(4):
                move(0.9 * 0.95**number + 0.05)
            states, actions, rewards, nexts, dones = zip(*random.sample(memory, 64), strict=True)
            values = policy(torch.stack(states)).gather(1, torch.tensor(actions)[:, None])
            with torch.no_grad():
                future = target(torch.stack(nexts)).max(1).values
            wanted = torch.tensor(rewards) + 0.9 * future * (1 - torch.tensor(dones))
            loss = F.smooth_l1_loss(values, wanted[:, None])
            optimizer.zero_grad()
            loss.backward()
            clip_grad_value_(policy.parameters(), 100)
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), policy.parameters(), strict=True):
                    slow.mul_(0.995).add_(fast, alpha=0.005)
            yield loss.item()

    return {
        "model": lambda: nn.Sequential(
            nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
        ),
        "batch": Corridor,
        "optimizer": adamw(1e-3, amsgrad=True),
        "loop": loop,
    }


@bench.healthy(in_loop=True)
def pole_actor_critic_by_episodes() -> Any:
    """The pole on a cart, four episodes a step: log-probabilities times normalized advantages."""

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.affine1 = nn.Linear(4, 64)
            self.action_head = nn.Linear(64, 2)
            self.value_head = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = F.relu(self.affine1(x))
            return F.softmax(self.action_head(x), dim=-1), self.value_head(x)

    def physics(s: list[float], action: int) -> list[float]:
        x, v, angle, w = s
        force = 10.0 if action else -10.0
        push = (force + 0.05 * w * w * math.sin(angle)) / 1.1
        turn = 9.8 * math.sin(angle) - math.cos(angle) * push
        turn /= 0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1)
        pull = push - 0.05 * turn * math.cos(angle) / 1.1
        return [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * w, w + 0.02 * turn]

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        for _ in range(steps):
            losses, lengths = [], []
            for _ in range(4):
                state, logs, values = list(draw()), [], []
                while len(logs) < 80 and abs(state[0]) < 2.4 and abs(state[2]) < 0.21:
                    probabilities, value = model(torch.tensor(state))
                    choice = torch.distributions.Categorical(probabilities)
                    action = choice.sample()
                    logs.append(choice.log_prob(action))
                    values.append(value[0])
                    state = physics(state, int(action))
                returns: list[float] = []
                for _ in logs:
                    returns.insert(0, 1 + 0.99 * (returns[0] if returns else 0))
                gains = torch.tensor(returns)
                gains = (gains - gains.mean()) / (gains.std() + 1e-7)
                value = torch.stack(values)
                actor = -(torch.stack(logs) * (gains - value.detach())).sum()
                losses.append(actor + F.smooth_l1_loss(value, gains, reduction="sum"))
                lengths.append(len(logs))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            yield -sum(lengths) / len(lengths)

    return {
        "model": Policy,
        "batch": lambda: tuple(random.uniform(-0.05, 0.05) for _ in range(4)),
        "optimizer": adam(1e-2),
        "loop": loop,
    }


@bench.healthy
def digits_convnet_averaged_over_the_last_steps() -> Any:
    """Stochastic weight averaging from the middle on, BatchNorm refreshed at the end."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    def loop(net: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        average = torch.optim.swa_utils.AveragedModel(net)
        scheduler = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=5)
        for number in range(steps):
            x, y = draw()
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            if number >= 20:
                average.update_parameters(net)
                scheduler.step()
            yield loss.item()
        torch.optim.swa_utils.update_bn([draw()[0] for _ in range(3)], average)

    return {
        "model": model,
        "batch": digits(64),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.1, momentum=0.9, weight_decay=5e-4),
        "loop": loop,
    }
