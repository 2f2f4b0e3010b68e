"""Sealed: pairs of faults with nothing in common, in models and in their loops."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_trainers import Tastes, sentences, spots
from tests.zoo.recipes import digit_images, marked, rows, text, waves

bench = Bench()
both = bench.mixture
CE = nn.CrossEntropyLoss()


# -- in the model, the loss, the data or the optimizer ------------------------------------


class Branches(nn.Module):
    """Convolutions of three widths side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = [nn.Conv2d(1, 8, k, padding=k // 2) for k in (1, 3, 5)]
        self.mix = nn.Conv2d(24, 24, 3, 2, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(torch.cat([branch(x) for branch in self.branches], 1))
        return self.head(F.relu(self.mix(h)).mean((2, 3)))


def bytes_of_digits(size: int = 32) -> tuple[Tensor, Tensor]:
    images, labels = digit_images()
    chosen = torch.randint(len(images), (size,))
    low, high = images.min(), images.max()
    return ((images[chosen] - low) / (high - low) * 255).round(), labels[chosen]


both(
    "branches-in-a-list-and-bytes-for-images",
    "GL709",
    "GL606",
    Branches,
    bytes_of_digits,
    CE,
    adam(1e-3),
)


class Patient(nn.Module):
    """Features of a patient, and how far the illness will go."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(10, 48), nn.GELU(), nn.Linear(48, 24), nn.GELU())
        self.score = nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x).data
        return F.relu(self.score(features)).squeeze(1)


both(
    "data-of-features-and-positive-scores-only",
    "GL701",
    "GL603",
    Patient,
    rows("diabetes", 64),
    nn.MSELoss(),
    adam(3e-3),
)


def electra() -> nn.Module:
    from transformers import ElectraConfig, ElectraForSequenceClassification

    model = ElectraForSequenceClassification(
        ElectraConfig(
            vocab_size=60, embedding_size=32, hidden_size=48, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=96, max_position_embeddings=16, num_labels=3,
        )
    )  # fmt: skip
    for p in model.electra.parameters():
        p.requires_grad = False
    return model


def sentences_and_labels() -> tuple[dict[str, Tensor], Tensor]:
    batch = sentences(16)
    labels = batch.pop("labels")
    return batch, labels


both(
    "scores-to-nll-and-frozen-fresh-encoder",
    "GL602",
    "GL712",
    electra,
    sentences_and_labels,
    lambda o, t: F.nll_loss(o.logits, t),
    adamw(1e-3),
)


class Towers(nn.Module):
    """What a reader is, and what an article is, in one space."""

    def __init__(self) -> None:
        super().__init__()

        def tower(width: int) -> nn.Module:
            return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 16))

        self.reader, self.article = tower(8), tower(12)
        for p in self.article.parameters():
            nn.init.constant_(p, 0.1)

    def forward(self, reader: Tensor, article: Tensor) -> Tensor:
        return (self.reader(reader) * self.article(article)).sum(1)


def clicked(size: int = 64) -> tuple[tuple[Tensor, Tensor], Tensor]:
    reader, article = torch.randn(size, 8), torch.randn(size, 12)
    return (reader, article), ((reader[:, :4] * article[:, :4]).sum(1) > 0).float()


both(
    "constant-tower-and-the-other-not-optimized",
    "GL102",
    "GL702",
    Towers,
    clicked,
    nn.BCEWithLogitsLoss(),
    lambda m: torch.optim.Adam(m.article.parameters(), 3e-3),
)


class FirstSample(nn.Module):
    """Attention over a wave; one index too many takes the first sample of what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(1, 32)
        self.norm = nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 4), nn.Dropout(0.8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        n = self.norm(h)
        h = h + self.attention(n, n, n, need_weights=False)[0][0]
        return self.head(h.amax(1))


both(
    "first-sample-added-to-all-and-scores-dropped",
    "GL808 GL608",
    "GL804",
    FirstSample,
    waves,
    CE,
    adam(3e-3),
)

both(
    "two-rows-and-column-against-row",
    "GL801",
    "GL605",
    lambda: nn.Sequential(
        nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32),
        nn.ReLU(), nn.Linear(32, 1),
    ),
    rows("diabetes", 2),
    nn.MSELoss(),
    adam(3e-3),
)  # fmt: skip


class Unscaled(nn.Module):
    """Attention by hand, 128 wide; somebody forgot to divide by the root."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 128)
        self.query, self.key, self.value = (nn.Linear(128, 128, bias=False) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        self.head = nn.Linear(128, 40)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        weight = (self.query(h) @ self.key(h).transpose(1, 2)).softmax(-1)
        return self.head((weight @ self.value(h)).mean(1))


def next_of_ten() -> tuple[Tensor, Tensor]:
    sequence = text(40, 10, 48)
    return sequence[:, :-1], sequence[:, -1]


both(
    "root-forgotten-and-embedding-not-held",
    "GL107 GL205",
    "GL702",
    Unscaled,
    next_of_ten,
    CE,
    lambda m: torch.optim.Adam(
        [p for name, p in m.named_parameters() if not name.startswith("embed")], 1e-3
    ),
)


# -- one of the two in the loop -----------------------------------------------------------


def looped(name: str, first: str, second: str, model: Any, batch: Any, optimizer: Any) -> Any:
    def add(run: Any) -> Any:
        both(name, first, second, model, batch, None, optimizer, loop=run, in_loop=True)
        return run

    return add


def finder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(384, 48), nn.ReLU(), nn.Linear(48, 2), nn.Sigmoid(),
    )  # fmt: skip


@looped("eval-mode-and-sigmoid-for-signed-places", "GL710", "GL603", finder, spots, adam(2e-3))
def _evaluated(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    model.eval()
    for _ in range(steps):
        image, where = draw()
        loss = F.mse_loss(model(image), where)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


class Weighed(nn.Module):
    """Weighs the vectors of a sequence, and says which kind it is."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.weigh, self.head = nn.Linear(32, 1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        return self.head((self.weigh(h).softmax(0) * h).sum(1))


@looped("weighed-over-the-batch-and-rate-halved", "GL113 GL608", "GL412 GL402",
        Weighed, marked, adam(0.01))  # fmt: skip
def _halved(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    for _ in range(steps):
        x, y = draw()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()


def wines(size: int = 32) -> tuple[Tensor, Tensor]:
    """Findings as they were measured, some below one and some above a thousand."""
    data = datasets.load_wine()
    chosen = torch.randint(len(data.target), (size,))
    return torch.tensor(data.data).float()[chosen], torch.tensor(data.target)[chosen]


@looped("never-cleared-and-wine-as-measured", "GL704", "GL606",
        lambda: nn.Sequential(nn.Linear(13, 32), nn.Tanh(), nn.Linear(32, 3)), wines,
        sgd(0.01, momentum=0.9))  # fmt: skip
def _never_cleared(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    for _ in range(steps):
        x, y = draw()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        yield loss.item()


class Bag(nn.Module):
    """The kind of a sentence from the mean of its words, as probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(60, 32)
        self.kind = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3), nn.Softmax(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.kind(self.words(ids))


@looped("clipped-to-nothing-and-softmax-twice", "GL403", "GL601", Bag,
        lambda: sentences(32), sgd(0.5))  # fmt: skip
def _clipped(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    for _ in range(steps):
        batch = draw()
        loss = F.cross_entropy(model(batch["input_ids"]), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-4)
        optimizer.step()
        yield loss.item()


both_tables = partial(torch.optim.Adam, lr=0.02)


def rated(size: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Users, films, and how many seconds of it each has seen."""
    user, film = torch.randint(60, (size,)), torch.randint(80, (size,))
    return user, film, 3000.0 + 1500.0 * ((user % 4 == film % 4).float() + 0.1 * torch.randn(size))


@looped("only-users-step-and-targets-in-seconds", "GL707", "GL615", Tastes, rated,
        lambda m: (both_tables(m.user.parameters()),
                   both_tables([*m.item.parameters(), *m.popular.parameters()])))  # fmt: skip
def _users_only(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    of_users, of_items = optimizer
    for _ in range(steps):
        user, film, seconds = draw()
        loss = F.mse_loss(model(user, film), seconds)
        of_users.zero_grad()
        of_items.zero_grad()
        loss.backward()
        of_users.step()
        yield loss.item()
