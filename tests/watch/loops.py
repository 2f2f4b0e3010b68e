"""Training loops of every family, to be run bare and watched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.watching import Watcher

Step = Callable[[], Tensor]


@dataclass
class Training:
    """A model, its optimizer and one step of its loop, which returns the loss."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Step


Make = Callable[[], Training]


def plain(model: nn.Module, inputs: Tensor, targets: Tensor, lr: float = 1e-2) -> Training:
    """The usual loop."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    return Training(model, optimizer, step)


def mlp() -> Training:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU(inplace=True),
        nn.Linear(32, 3),
    )  # fmt: skip
    return plain(model, torch.randn(64, 12), torch.randint(0, 3, (64,)))


def cnn() -> Training:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    )  # fmt: skip
    return plain(model, torch.randn(16, 1, 12, 12), torch.randint(0, 4, (16,)))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.rnn = nn.LSTM(16, 24, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0][:, -1])


def lstm() -> Training:
    torch.manual_seed(2)
    return plain(Tagger(), torch.randint(0, 30, (16, 10)), torch.randint(0, 5, (16,)))


def gpt() -> Training:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    tokens = torch.randint(0, 50, (4, 12))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Training(model, optimizer, step)


def amp() -> Training:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    inputs, targets = torch.randn(32, 12), torch.randint(0, 3, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Training(model, optimizer, step)


def accumulation() -> Training:
    """Three backwards a step, and before them one whose gradients are looked at and cleared."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    inputs, targets = torch.randn(3, 16, 12), torch.randint(0, 3, (3, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step() -> Tensor:
        nn.functional.cross_entropy(model(inputs[0]), targets[0]).backward()
        optimizer.zero_grad(set_to_none=False)
        for some, labels in zip(inputs, targets, strict=True):
            loss = nn.functional.cross_entropy(model(some), labels) / 3
            loss.backward()
        optimizer.step()
        return loss

    return Training(model, optimizer, step)


FAMILIES: dict[str, Make] = {
    "mlp": mlp, "cnn": cnn, "lstm": lstm, "gpt": gpt, "amp": amp, "accumulation": accumulation,
}  # fmt: skip


def watched(
    training: Training, steps: int, around: AbstractContextManager[Any] | None = None, **how: Any
) -> tuple[Watcher, list[Tensor]]:
    """Run `steps` steps under a watcher; fails where the watcher stopped itself."""
    losses: list[Tensor] = []
    watcher = Watcher(training.model, training.optimizer, **how)
    with watcher:
        if around is None:
            losses += [training.step().detach().clone() for _ in range(steps)]
        else:
            with around:
                losses += [training.step().detach().clone() for _ in range(steps)]
    unfailed(watcher)
    return watcher, losses


def unfailed(watcher: Watcher) -> None:
    """Raise what made the watcher stop, if anything did."""
    if watcher.loop.failure is not None:
        raise watcher.loop.failure
