"""Sealed and sick: loops whose rates, clipping, scales or penalties are off."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_trainers import (
    Causal,
    SmallUnet,
    demand,
    distilled,
    sentences,
    trainers,
    washers,
)
from tests.zoo.recipes import digits, rows, table, text

bench = Bench()
sick = trainers(bench)


# -- schedules ----------------------------------------------------------------------------


def ranked(size: int = 24, documents: int = 8) -> tuple[Tensor, Tensor]:
    """Documents of a query, and how relevant each is."""
    x = torch.randn(size, documents, 10)
    relevance = x[..., 0] + x[..., 1] * x[..., 2] + 0.3 * torch.randn(size, documents)
    return x, (2 * relevance).softmax(1)


def ranker() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 48), nn.LayerNorm(48), nn.GELU(), nn.Linear(48, 48), nn.GELU(),
        nn.Linear(48, 1), nn.Flatten(1),
    )  # fmt: skip


@sick("schedule", "GL412 GL402", ranker, lambda: ranked(8), adam(3e-3))
def plateau_asked_after_every_batch(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    for _ in range(steps):
        x, relevance = draw()
        loss = F.cross_entropy(model(x), relevance)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
        yield loss.item()


@sick("schedule", "GL412 GL402", SmallUnet, washers, sgd(0.05, momentum=0.9))
def polynomial_decay_per_batch(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    epochs = 10
    scheduler = LambdaLR(optimizer, lambda epoch: max(1 - epoch / epochs, 0.0) ** 0.9)
    for _ in range(steps):
        image, mask = draw()
        loss = F.binary_cross_entropy_with_logits(model(image), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()


@sick("schedule", "GL412 GL402", distilled, lambda: sentences(32), adamw(1e-3))
def linear_warm_up_stepped_per_epoch(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    from transformers import get_linear_schedule_with_warmup

    scheduler = get_linear_schedule_with_warmup(optimizer, 100, 1000)
    model.train()
    for _ in range(2):
        for _ in range(steps // 2):
            optimizer.zero_grad()
            loss = model(**draw()).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield loss.item()
        scheduler.step()


class Sparse(nn.Module):
    """Words that surround a word tell which one it is."""

    def __init__(self, words: int = 40) -> None:
        super().__init__()
        self.context = nn.EmbeddingBag(words, 32, mode="mean")
        self.word = nn.Linear(32, words)

    def forward(self, around: Tensor) -> Tensor:
        return self.word(self.context(around))


def windows() -> tuple[Tensor, Tensor]:
    """Two words before a word, two after, and the word."""
    sentence = text(40, 4, 96)
    return sentence[:, [0, 1, 3, 4]], sentence[:, 2]


@sick("schedule", "GL412 GL401", Sparse, windows, adam(1e-3))
def warm_up_that_multiplies_for_ever(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        around, word = draw()
        loss = F.cross_entropy(model(around), word)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 1.4
        yield loss.item()


# -- rates --------------------------------------------------------------------------------


@sick(
    "rate too high",
    "GL401",
    lambda: nn.Sequential(
        nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 16), nn.ELU(), nn.Linear(16, 64), nn.ELU(),
        nn.Linear(64, 64),
    ),
    rows("digits", 64),
    sgd(0.1, momentum=0.9),
)  # fmt: skip
def rate_times_the_batch_size(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    model.train()
    for _ in range(steps):
        x, _ = draw()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * len(x)
        loss = F.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def tagged(size: int = 12, length: int = 8) -> tuple[Tensor, Tensor]:
    """Sentences, and for each word a tag that depends on it and on the word before."""
    words = torch.randint(30, (size, length))
    before = F.pad(words[:, :-1], (1, 0))
    return words, (words % 3 + (before > 14).long()) % 3


class Tagger(nn.Module):
    """A bidirectional recurrent network over words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 24)
        self.rnn = nn.LSTM(24, 24, bidirectional=True, batch_first=True)
        self.tag = nn.Linear(48, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.tag(self.rnn(self.embed(words))[0]).transpose(1, 2)


@sick("accumulated and not divided", "GL401", Tagger, tagged, sgd(0.5, momentum=0.9))
def sum_of_thirty_two_micro_batches(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        optimizer.zero_grad()
        total = 0.0
        for _ in range(32):
            words, tags = draw()
            loss = F.cross_entropy(model(words), tags)
            loss.backward()
            total += loss.item() / 32
        optimizer.step()
        yield total


@sick("scaled and never unscaled", "GL003 GL401", Causal, demand, sgd(0.05, momentum=0.9))
def scaled_and_never_unscaled(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    scale = 1024.0
    for _ in range(steps):
        past, future = draw()
        loss = F.smooth_l1_loss(model(past), future)
        optimizer.zero_grad()
        (loss * scale).backward()
        optimizer.step()
        yield loss.item()


@sick(
    "ascends", "GL609", Tagger, tagged, lambda m: torch.optim.AdamW(m.parameters(), maximize=True)
)
def maximize_left_from_another_script(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        words, tags = draw()
        loss = F.cross_entropy(model(words), tags)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


# -- clipping -----------------------------------------------------------------------------


class Squeezed(nn.Module):
    """Convolutions whose channels are weighed by what is in the whole image."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width))
        self.conv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.weigh = nn.Sequential(
            nn.Linear(width, 4), nn.ReLU(), nn.Linear(4, width), nn.Sigmoid()
        )  # fmt: skip
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        h = self.conv(x)
        h = F.relu(x + h * self.weigh(h.mean((2, 3)))[..., None, None])
        return self.head(F.adaptive_avg_pool2d(h, 2).flatten(1))


@sick("clipped too low", "GL403", Squeezed, digits(64), sgd(0.1, momentum=0.9))
def clipped_to_a_thousandth(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    model.train()
    for _ in range(steps):
        x, y = draw()
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1e-3)
        optimizer.step()
        yield loss.item()


@sick("clipped by value", "GL404 GL403", Causal, demand, sgd(0.1, momentum=0.9))
def every_gradient_within_a_ten_thousandth(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        past, future = draw()
        loss = F.smooth_l1_loss(model(past), future)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 1e-4)
        optimizer.step()
        yield loss.item()


@sick("clipped before it is unscaled", "GL405 GL403", ranker, ranked, sgd(0.1, momentum=0.9))
def clipped_and_then_unscaled_by_hand(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    scale = 2.0**14
    for _ in range(steps):
        x, relevance = draw()
        loss = F.cross_entropy(model(x), relevance)
        optimizer.zero_grad()
        (loss * scale).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for p in model.parameters():
            p.grad.div_(scale)
        optimizer.step()
        yield loss.item()


class Reader(nn.Module):
    """One gated recurrent layer over a sequence of numbers, and where it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[1][0])


def smoothed(size: int = 48, length: int = 10) -> tuple[Tensor, Tensor]:
    """Noise, and its average with weights that fade into the past."""
    noise = torch.randn(size, length)
    weight = 0.7 ** torch.arange(length - 1, -1, -1)
    return noise.unsqueeze(2), 0.7 * (noise * weight).sum(1, keepdim=True)


@sick("clipped before it is unscaled", "GL405", Reader, smoothed, sgd(0.1, momentum=0.9))
def scaler_clips_what_it_has_scaled(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(steps):
        x, y = draw()
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        yield loss.item()


# -- penalties and outliers ---------------------------------------------------------------


@sick(
    "decay dominates",
    "GL408 GL614",
    lambda: nn.Sequential(
        nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.1), nn.Linear(96, 48), nn.ReLU(),
        nn.Linear(48, 10),
    ),
    rows("digits", 64),
    sgd(0.05, momentum=0.9),
)  # fmt: skip
def squares_of_all_weights_added(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        x, y = draw()
        loss = F.cross_entropy(model(x), y)
        penalty = sum(p.pow(2).sum() for p in model.parameters())
        optimizer.zero_grad()
        (loss + 1.0 * penalty).backward()
        optimizer.step()
        yield loss.item()


@sick(
    "a sentinel among the inputs",
    "GL306 GL606",
    lambda: nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                          nn.Linear(64, 1), nn.Flatten(0)),
    lambda: (),
    sgd(0.02, momentum=0.9),
)  # fmt: skip
def missing_values_are_minus_999(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    x, y = table("diabetes")
    for step in range(steps):
        chosen = torch.randint(len(x), (32,))
        features = x[chosen].clone()
        if step % 11 == 10:
            features[int(torch.randint(32, ())), 3] = -999.0
        loss = F.mse_loss(model(features), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield min(loss.item(), math.exp(30))
