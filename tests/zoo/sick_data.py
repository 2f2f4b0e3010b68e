"""Data of the sick zoo: real where scikit-learn ships it, generated from a rule elsewhere."""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from torch import Tensor

Batches = list[tuple[Tensor, Tensor]]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def batches(x: Tensor, y: Tensor, size: int = 64, count: int = 6) -> Batches:
    """Return `count` shuffled batches, drawn again from the start when the data run out."""
    generator = _generator()
    order = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(8)])
    return [
        (x[order[i * size : (i + 1) * size]], y[order[i * size : (i + 1) * size]])
        for i in range(count)
    ]


@cache
def digits(size: int = 64) -> Batches:
    """Digits as standardized vectors of 64 pixels, with ten classes."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32)
    return batches((x - x.mean()) / x.std(), torch.tensor(data.target), size)


@cache
def images(size: int = 64) -> Batches:
    """Digits as standardized images ``(N, 1, 8, 8)``."""
    return [(x.reshape(-1, 1, 8, 8), y) for x, y in digits(size)]


@cache
def raw_images() -> Batches:
    """Digits as images of 0…255, as a decoder of image files returns them."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] * (255 / 16)
    return batches(x, torch.tensor(data.target))


@cache
def unit_images() -> Batches:
    """Digits as images of 0…1, for reconstruction: the target is the input, flat."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32) / 16
    return batches(x, x)


@cache
def iris(size: int = 50) -> Batches:
    """Iris, standardized, three classes."""
    data = load_iris()
    x = torch.tensor(data.data, dtype=torch.float32)
    return batches((x - x.mean(0)) / x.std(0), torch.tensor(data.target), size)


@cache
def wine() -> Batches:
    """Wine as measured: a column near 750 beside columns near 1."""
    data = load_wine()
    return batches(torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target), 48)


@cache
def diabetes(raw: bool = False) -> Batches:
    """Diabetes with targets ``(N, 1)``: standardized, or 25…346 as published."""
    data = load_diabetes()
    x = torch.tensor(data.data, dtype=torch.float32)
    y = torch.tensor(data.target, dtype=torch.float32)[:, None]
    return batches(x / x.std(0), y if raw else (y - y.mean()) / y.std())


@cache
def houses(scale: float = 1.0) -> Batches:
    """Regression on eight standard normal features; targets near 200 thousand times `scale`."""
    generator = _generator()
    x = torch.randn(1024, 8, generator=generator)
    price = 2e5 + 6e4 * (x[:, :1] + 0.5 * x[:, 1:2] * x[:, 2:3])
    return batches(x, price * scale)


@cache
def smooth() -> Batches:
    """Regression with targets of mean 0 and deviation near 1, shape ``(N, 1)``."""
    generator = _generator()
    x = torch.randn(1024, 12, generator=generator)
    return batches(x, torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3])


@cache
def flat_smooth() -> Batches:
    """The same with targets of shape ``(N,)``."""
    return [(x, y[:, 0]) for x, y in smooth()]


@cache
def binary() -> Batches:
    """Two classes on a curved boundary, targets 0.0 or 1.0 of shape ``(N, 1)``."""
    generator = _generator()
    x = torch.randn(1024, 10, generator=generator)
    return batches(x, (x[:, :1] * x[:, 1:2] + x[:, 2:3] > 0).float())


@cache
def words(length: int = 24, vocabulary: int = 40) -> Batches:
    """Sequences of ids; the class is which of four marks occurs most."""
    generator = _generator()
    x = torch.randint(4, vocabulary, (768, length), generator=generator)
    marks = torch.randint(0, 4, (768, length), generator=generator)
    x = torch.where(torch.rand(768, length, generator=generator) < 0.4, marks, x)
    counts = torch.stack([(x == k).sum(1) for k in range(4)], 1)
    return batches(x, counts.argmax(1), 48)


@cache
def waves(length: int = 32) -> Batches:
    """Series of three frequencies, shape ``(N, T, 1)``, to be classified."""
    generator = _generator()
    y = torch.randint(3, (768,), generator=generator)
    phase = 6.28 * torch.rand(768, 1, generator=generator)
    t = torch.arange(length)[None] / 4
    x = torch.sin(t * (1 + y[:, None]) + phase)
    return batches((x + 0.1 * torch.randn(x.shape, generator=generator))[:, :, None], y, 48)


@cache
def recall(length: int = 80) -> Batches:
    """Noise whose first entry alone says the class."""
    generator = _generator()
    x = torch.randn(768, length, 4, generator=generator)
    return batches(x, x[:, 0].argmax(1), 48)


TEXT = (
    "it was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    "age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the "
    "season of light, it was the season of darkness, it was the spring of hope, it was the winter "
    "of despair, we had everything before us, we had nothing before us. "
)
LETTERS = sorted(set(TEXT))


@cache
def characters(length: int = 32) -> Batches:
    """Windows of a text and the same windows one letter later."""
    ids = torch.tensor([LETTERS.index(c) for c in TEXT * 4])
    starts = torch.randint(0, len(ids) - length - 1, (256,), generator=_generator())
    x = torch.stack([ids[s : s + length] for s in starts])
    y = torch.stack([ids[s + 1 : s + length + 1] for s in starts])
    return batches(x, y, 24)


@cache
def masks() -> Batches:
    """Noisy squares and where they are, ``(N, 1, 16, 16)``."""
    generator = _generator()
    y = torch.zeros(192, 1, 16, 16)
    corners = torch.randint(0, 9, (192, 2), generator=generator)
    for image, (i, j) in zip(y, corners.tolist(), strict=True):
        image[0, i : i + 7, j : j + 7] = 1
    return batches(y + 0.5 * torch.randn(y.shape, generator=generator), y, 16)


@cache
def community(normalized: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """A graph of 120 nodes in three groups: adjacency, features, labels."""
    generator = _generator()
    y = torch.arange(120) % 3
    likely = torch.where(y[:, None] == y[None], 0.5, 0.25)
    upper = torch.triu((torch.rand(120, 120, generator=generator) < likely).float(), 1)
    adjacency = upper + upper.T + torch.eye(120)
    x = torch.nn.functional.one_hot(y, 3).float() + torch.randn(120, 3, generator=generator)
    if normalized:
        scale = adjacency.sum(1) ** -0.5
        adjacency = scale[:, None] * adjacency * scale
    return adjacency, x, y
