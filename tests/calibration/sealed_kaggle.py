"""Sealed and healthy: what competitions' notebooks train."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, OneCycleLR

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import digits, rows, table

bench = Bench()
CE = nn.CrossEntropyLoss()


@bench.healthy
def house_prices_in_standardized_logs_rmse() -> Any:
    """Numbers standardized, categories as one-hot columns, the root of the squared error."""

    def batch() -> Any:
        numbers = torch.randn(128, 8)
        quarter, roof = torch.randint(6, (128,)), torch.randint(4, (128,))
        x = torch.cat([numbers, F.one_hot(quarter, 6).float(), F.one_hot(roof, 4).float()], 1)
        log_price = 12 + 0.3 * numbers[:, 0] + 0.15 * numbers[:, 1] * numbers[:, 2]
        log_price = log_price + 0.1 * (quarter - 2.5) + 0.05 * torch.randn(128)
        return x, ((log_price - 12) / 0.4)[:, None]

    return {
        "model": lambda: nn.Sequential(
            nn.Linear(18, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(),
            nn.Dropout(0.1), nn.Linear(64, 1),
        ),
        "batch": batch,
        "loss": lambda o, t: torch.sqrt(F.mse_loss(o, t) + 1e-8),
        "optimizer": adam(3e-3),
    }  # fmt: skip


class Passengers(nn.Module):
    """Embedded categories, numbers through a BatchNorm, flags for what was missing."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 2), (2, 1), (4, 2), (12, 6))
        self.embeds = nn.ModuleList(nn.Embedding(n, m) for n, m in sizes)
        self.bn_cont = nn.BatchNorm1d(3)
        self.layers = nn.Sequential(
            nn.Linear(11 + 3 + 1, 100), nn.ReLU(inplace=True), nn.BatchNorm1d(100), nn.Dropout(0.1),
            nn.Linear(100, 50), nn.ReLU(inplace=True), nn.BatchNorm1d(50), nn.Dropout(0.1),
            nn.Linear(50, 2),
        )  # fmt: skip

    def forward(self, categories: Tensor, numbers: Tensor, missing: Tensor) -> Tensor:
        held = [embed(categories[:, i]) for i, embed in enumerate(self.embeds)]
        return self.layers(torch.cat([*held, self.bn_cont(numbers), missing], 1))


@bench.healthy
def passengers_with_missing_ages() -> Any:
    def batch() -> Any:
        categories = torch.stack([torch.randint(n, (64,)) for n in (3, 2, 4, 12)], 1)
        age, fare = 30 + 14 * torch.randn(64), torch.exp(3 + torch.randn(64)).clamp(max=300)
        missing = torch.rand(64) < 0.2
        numbers = torch.stack([torch.where(missing, 28.0, age), fare, torch.randn(64)], 1)
        score = 2.5 * categories[:, 1] - categories[:, 0] + 0.3 * fare.log() - 0.02 * age
        return (categories, numbers, missing.float()[:, None]), (score > 0).long()

    return {
        "model": Passengers,
        "batch": batch,
        "loss": CE,
        "optimizer": adamw(5e-3, weight_decay=0.1),
        "schedule": lambda o: OneCycleLR(o, 1e-2, total_steps=41),
    }


def mechanisms(size: int = 128) -> tuple[Tensor, Tensor]:
    """Forty expressions of genes and which of twenty rare mechanisms act on them."""
    targets = (torch.rand(size, 20) < 0.05).float()
    mixing = torch.randn(20, 40, generator=torch.Generator().manual_seed(1))
    return torch.randn(size, 40) + 1.5 * targets @ mixing, targets


@bench.healthy
def mechanisms_weight_normalized_one_cycle() -> Any:
    """Rare labels, smoothed by a thousandth; BatchNorm and dropout in front of each layer."""

    def loss(o: Tensor, t: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(o, t * (1 - 1e-3) + 5e-4)

    return {
        "model": lambda: nn.Sequential(
            nn.BatchNorm1d(40), nn.Dropout(0.2), weight_norm(nn.Linear(40, 128)),
            nn.LeakyReLU(), nn.BatchNorm1d(128), nn.Dropout(0.4), weight_norm(nn.Linear(128, 128)),
            nn.LeakyReLU(), nn.BatchNorm1d(128), nn.Dropout(0.2), weight_norm(nn.Linear(128, 20)),
        ),
        "batch": mechanisms,
        "loss": loss,
        "optimizer": adam(1e-3, weight_decay=1e-5),
        "schedule": lambda o: OneCycleLR(o, 1e-2, total_steps=41, pct_start=0.1, div_factor=1e3),
    }  # fmt: skip


@bench.healthy
def columns_reshaped_for_convolutions() -> Any:
    """A wide linear layer makes a signal of a table's row, one-dimensional convolutions read it."""

    class Soft(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expand = nn.Sequential(
                nn.BatchNorm1d(30), nn.Dropout(0.1), nn.Linear(30, 256), nn.CELU(0.06)
            )
            self.conv1 = nn.Sequential(
                nn.BatchNorm1d(16), nn.Conv1d(16, 32, 5, padding=2, bias=False), nn.ReLU(),
                nn.AdaptiveAvgPool1d(8),
            )  # fmt: skip
            self.conv2 = nn.Sequential(
                nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Conv1d(32, 32, 3, padding=1), nn.ReLU()
            )
            self.head = nn.Sequential(nn.BatchNorm1d(128), nn.Dropout(0.1), nn.Linear(128, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(self.expand(x).reshape(len(x), 16, 16))
            x = self.conv2(x) * x
            return self.head(F.max_pool1d(x, 2).flatten(1))

    def batch() -> Any:
        x, y = rows("breast_cancer", 64)()
        return x, y.float()[:, None]

    return {
        "model": Soft,
        "batch": batch,
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-3, weight_decay=1e-5),
    }


@bench.healthy
def swap_noise_denoised_by_columns() -> Any:
    """Some columns are taken from other rows; the network puts the right ones back."""

    def batch() -> Any:
        x, _ = table("wine")
        x = x[torch.randint(len(x), (128,))]
        others = torch.stack([column[torch.randperm(128)] for column in x.unbind(1)], 1)
        return torch.where(torch.rand_like(x) < 0.15, others, x), x

    return {
        "model": lambda: nn.Sequential(
            nn.Linear(13, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 96),
            nn.ReLU(), nn.Linear(96, 13),
        ),
        "batch": batch,
        "loss": nn.MSELoss(),
        "optimizer": adam(3e-3),
    }  # fmt: skip


class Sales(nn.Module):
    """What was sold into an LSTM, the shop and the days ahead into its reading."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = nn.Embedding(10, 4)
        self.encoder = nn.LSTM(1 + 4, 40, batch_first=True)
        self.decoder = nn.GRUCell(4 + 7, 40)
        self.out = nn.Linear(40, 1)

    def forward(self, sold: Tensor, shop: Tensor, weekday: Tensor) -> Tensor:
        place = self.shop(shop)
        inputs = torch.cat([sold[..., None], place[:, None].expand(-1, sold.shape[1], -1)], 2)
        _, (hidden, _) = self.encoder(inputs)
        state, ahead = hidden[-1], []
        for day in range(7):
            known = torch.cat([place, F.one_hot((weekday + day) % 7, 7).float()], 1)
            state = self.decoder(known, state)
            ahead.append(self.out(state))
        return torch.cat(ahead, 1)


@bench.healthy
def shop_sales_a_week_ahead_in_logs() -> Any:
    def batch() -> Any:
        shop, weekday = torch.randint(10, (64,)), torch.randint(7, (64,))
        days = torch.arange(28) + weekday[:, None]
        level = 3 + 0.3 * (shop[:, None] - 4.5) + 0.2 * torch.randn(64, 1)
        log_sold = level + 0.6 * torch.sin(2 * math.pi * days / 7) + 0.2 * torch.randn(64, 28)
        log_sold = (log_sold - 3) / 1.0
        return (log_sold[:, :21], shop, (weekday + 21) % 7), log_sold[:, 21:]

    return {"model": Sales, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(5e-3)}


class Birds(nn.Module):
    """Which birds sing when: attention over time weighs the probabilities of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(32)
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AvgPool2d(2), nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32),
            nn.ReLU(), nn.AvgPool2d(2),
        )  # fmt: skip
        self.fc = nn.Linear(32, 32)
        self.att = nn.Conv1d(32, 5, 1)
        self.cla = nn.Conv1d(32, 5, 1)
        for layer in (self.fc, self.att, self.cla):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.bn0(mel.transpose(1, 2)[..., None]).squeeze(-1).transpose(1, 2)
        x = self.body(x[:, None]).mean(3)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        x = F.relu(self.fc(F.dropout(x.transpose(1, 2), 0.2, self.training))).transpose(1, 2)
        weights = torch.softmax(torch.tanh(self.att(x)), dim=-1)
        return (weights * torch.sigmoid(self.cla(x))).sum(2).clamp(1e-6, 1 - 1e-6)


@bench.healthy
def birds_in_mel_frames_clip_by_attention() -> Any:
    """Several of five calls in a spectrogram in decibels, each a band of its own for a while."""

    def batch() -> Any:
        labels = (torch.rand(32, 5) < 0.3).float()
        mel = -40 + 5 * torch.randn(32, 48, 32)
        for i, k in labels.nonzero().tolist():
            start = int(torch.randint(30, ()))
            mel[i, start : start + 14, 6 * k : 6 * k + 5] += 20
        return mel, labels

    return {"model": Birds, "batch": batch, "loss": nn.BCELoss(), "optimizer": adam(4e-3)}


class Gem(nn.Module):
    """The mean to a learned power, over positions."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p, self.eps = nn.Parameter(torch.ones(1) * p), eps

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.eps).pow(self.p).mean((2, 3)).pow(1 / self.p)


def gem_convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.SiLU(),
        nn.Conv2d(24, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.SiLU(),
        nn.Conv2d(48, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        Gem(), nn.Linear(64, 10),
    )  # fmt: skip


@bench.healthy
def gem_pooling_weighted_classes_warm_restarts() -> Any:
    weights = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.5, 1.0, 0.7, 1.0, 1.0, 3.0])
    return {
        "model": gem_convnet,
        "batch": digits(48),
        "loss": nn.CrossEntropyLoss(weight=weights),
        "optimizer": adamw(2e-3, weight_decay=1e-2),
        "schedule": lambda o: CosineAnnealingWarmRestarts(o, T_0=20, eta_min=1e-5),
    }


@bench.healthy(in_loop=True)
def cutmix_half_of_the_time_with_averaged_weights() -> Any:
    def cut(x: Tensor) -> tuple[Tensor, Tensor, float]:
        order = torch.randperm(len(x))
        share = float(torch.distributions.Beta(1.0, 1.0).sample())
        side = int(8 * math.sqrt(1 - share))
        top, left = torch.randint(8 - side + 1, (2,)).tolist()
        x = x.clone()
        x[:, :, top : top + side, left : left + side] = x[
            order, :, top : top + side, left : left + side
        ]
        return x, order, 1 - side * side / 64

    def loop(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        average = copy.deepcopy(model).eval().requires_grad_(False)
        scheduler = OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
        criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        for _ in range(steps):
            x, y = draw()
            if torch.rand(()) < 0.5:
                x, order, share = cut(x)
                o = model(x)
                loss = share * criterion(o, y) + (1 - share) * criterion(o, y[order])
            else:
                loss = criterion(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                both = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
                for slow, fast in both:
                    if slow.is_floating_point():
                        slow.lerp_(fast, 0.02)
                    else:
                        slow.copy_(fast)
            yield loss.item()

    return {
        "model": gem_convnet,
        "batch": digits(64),
        "optimizer": adamw(1e-3, weight_decay=0.05),
        "loop": loop,
    }


@bench.healthy
def ages_by_expectation_over_bins() -> Any:
    """A distribution over thirty ages: its divergence from a Gaussian, and its mean's error."""
    ages = torch.arange(30.0)

    def batch() -> Any:
        x = torch.randn(96, 12)
        return x, (15 + 4 * torch.tanh(x[:, 0]) + 3 * x[:, 1] + 0.5 * torch.randn(96)).clamp(0, 29)

    def loss(o: Tensor, age: Tensor) -> Tensor:
        wanted = torch.softmax(-((ages - age[:, None]) ** 2) / 2, 1)
        expected = (torch.softmax(o, 1) * ages).sum(1)
        divergence = F.kl_div(F.log_softmax(o, 1), wanted, reduction="batchmean")
        return divergence + 0.1 * F.l1_loss(expected, age)

    return {
        "model": lambda: nn.Sequential(nn.Linear(12, 96), nn.ReLU(), nn.Linear(96, 30)),
        "batch": batch,
        "loss": loss,
        "optimizer": adam(5e-3),
    }


@bench.healthy
def fraud_one_in_thirty_with_its_weight() -> Any:
    def batch() -> Any:
        y = (torch.rand(512) < 1 / 30).float()
        x = torch.randn(512, 16)
        x[:, :4] += 1.5 * y[:, None] * torch.tensor([1.0, -1.0, 1.0, 0.5])
        return x, y

    class Fraud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32),
                nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x).squeeze(1)

    return {
        "model": Fraud,
        "batch": batch,
        "loss": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(29.0)),
        "optimizer": adam(2e-3),
    }


class Gated(nn.Module):
    """A gated residual network: ELU, a linear layer, a gate, dropout, a norm over the sum."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(n, m), nn.Linear(m, m)
        self.gate = nn.Linear(m, 2 * m)
        self.skip = nn.Linear(n, m) if n != m else nn.Identity()
        self.norm = nn.LayerNorm(m)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(self.fc2(F.elu(self.fc1(x))), 0.1, self.training)
        return self.norm(self.skip(x) + F.glu(self.gate(h), dim=-1))


@bench.healthy
def demand_quantiles_through_gated_residuals() -> Any:
    """Three quantiles of six hours ahead."""
    levels = torch.tensor([0.1, 0.5, 0.9])

    def batch() -> Any:
        phase = 2 * math.pi * torch.rand(64, 1)
        clock = torch.arange(30) / 4
        series = torch.sin(clock + phase) * (1 + 0.3 * torch.randn(64, 1))
        series = (series + 0.3 * torch.randn(64, 30)) / 0.8
        return series[:, :24], series[:, 24:]

    def loss(o: Tensor, t: Tensor) -> Tensor:
        error = t[..., None] - o
        return torch.maximum(levels * error, (levels - 1) * error).mean()

    return {
        "model": lambda: nn.Sequential(
            Gated(24, 40), Gated(40, 40), nn.Linear(40, 18), nn.Unflatten(1, (6, 3))
        ),
        "batch": batch,
        "loss": loss,
        "optimizer": adam(3e-3),
        "clip": 0.5,
    }


class Tracing(nn.Module):
    """Which exercise will be solved: exercises to come ask what was answered before."""

    def __init__(self, skills: int = 12, width: int = 32) -> None:
        super().__init__()
        self.skills = skills
        self.answered = nn.Embedding(2 * skills + 1, width, padding_idx=2 * skills)
        self.asked = nn.Embedding(skills, width)
        self.at = nn.Embedding(16, width)
        self.attention = nn.MultiheadAttention(width, 4, dropout=0.1, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.out = nn.Linear(width, 1)

    def forward(self, skill: Tensor, right: Tensor) -> Tensor:
        length = skill.shape[1]
        past = F.pad((skill + self.skills * right)[:, :-1], (1, 0), value=2 * self.skills)
        key = self.answered(past) + self.at.weight[:length]
        query = self.asked(skill)
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        read, _ = self.attention(query, key, key, attn_mask=mask, need_weights=False)
        x = self.norm1(query + read)
        return self.out(self.norm2(x + self.ffn(x))).squeeze(-1)


@bench.healthy
def exercises_solved_traced_by_attention() -> Any:
    @cache
    def hard() -> Tensor:
        return 2 * torch.randn(12, generator=torch.Generator().manual_seed(5))

    def batch() -> Any:
        skill = torch.randint(12, (64, 16))
        ability = torch.randn(64, 1)
        right = (torch.rand(64, 16) < torch.sigmoid(ability - hard()[skill])).long()
        kept = torch.arange(16) < torch.randint(6, 17, (64, 1))
        return (skill, right), (right.float(), kept)

    def loss(o: Tensor, t: Any) -> Tensor:
        right, kept = t
        return F.binary_cross_entropy_with_logits(o[kept], right[kept])

    return {"model": Tracing, "batch": batch, "loss": loss, "optimizer": adam(3e-3)}


@cache
def word_vectors() -> Tensor:
    """Vectors of 300 words as if read from a file: words of one topic point one way."""
    random = torch.Generator().manual_seed(8)
    topics = torch.randn(6, 48, generator=random)
    vectors = topics[torch.arange(300) % 6] + 0.6 * torch.randn(300, 48, generator=random)
    vectors[0] = 0
    return 0.4 * vectors


class Toxic(nn.Module):
    """Known vectors that stay as they are, spatial dropout, two recurrences, two poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(word_vectors(), freeze=True, padding_idx=0)
        self.lstm = nn.LSTM(48, 24, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(48, 24, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(96, 32)
        self.out = nn.Linear(32, 6)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words).transpose(1, 2)[..., None]
        x = F.dropout2d(x, 0.2, self.training).squeeze(-1).transpose(1, 2)
        x, _ = self.gru(self.lstm(x)[0])
        pooled = torch.cat([x.mean(1), x.max(1).values], 1)
        return self.out(F.dropout(F.relu(self.linear(pooled)), 0.1, self.training))


@bench.healthy
def toxic_comments_frozen_word_vectors() -> Any:
    def batch() -> Any:
        words = torch.randint(1, 300, (64, 20))
        words[torch.arange(20) >= torch.randint(8, 21, (64, 1))] = 0
        counts = F.one_hot(words % 6, 6) * (words > 0)[..., None]
        return words, (counts.sum(1) > 3).float()

    return {
        "model": Toxic,
        "batch": batch,
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adam(5e-3),
    }


@bench.healthy
def dates_wrapped_on_a_circle() -> Any:
    """Hours and weekdays as sine and cosine beside numbers; counts predicted as their logs."""

    def batch() -> Any:
        hour, day = 24 * torch.rand(128), torch.randint(7, (128,))
        turns = torch.stack([hour / 24, day / 7], 1) * 2 * math.pi
        weather = torch.randn(128, 4)
        log_rides = 4 + torch.sin(turns[:, 0] - 1) + 0.4 * (day > 4) + 0.3 * weather[:, 0]
        x = torch.cat([turns.sin() * math.sqrt(2), turns.cos() * math.sqrt(2), weather], 1)
        return x, (log_rides + 0.1 * torch.randn(128) - 4)[:, None]

    return {
        "model": lambda: nn.Sequential(
            nn.Linear(8, 64), nn.PReLU(), nn.Linear(64, 64), nn.PReLU(), nn.Linear(64, 1)
        ),
        "batch": batch,
        "loss": nn.HuberLoss(delta=0.5),
        "optimizer": sgd(0.1, momentum=0.9, weight_decay=1e-4),
    }
