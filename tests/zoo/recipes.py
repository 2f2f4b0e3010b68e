"""Recipe: a healthy training as people write it; and the small data sets they train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from sklearn import datasets
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """What `gradlint.check` is given, and what is known of the training.

    `batch` is called once a batch, under gradlint's seed; None leaves the batch to gradlint.
    `allowed` maps the code of a warning that is true of this training to the reason.
    `learns` is False, with the reason beside it, where 40 steps show no fall of the loss.
    """

    name: str
    model: Callable[[], nn.Module]
    batch: Any = None
    loss_fn: Any = None
    optimizer: Any = None
    training_step: Any = None
    precision: str | None = None
    allowed: Mapping[str, str] = field(default_factory=dict)
    learns: bool = True
    slow: bool = False

    def arguments(self) -> dict[str, Any]:
        """What `gradlint.check` takes."""
        return {
            "model": self.model,
            "batch": self.batch,
            "loss_fn": self.loss_fn,
            "optimizer": self.optimizer,
            "training_step": self.training_step,
            "precision": self.precision,
        }


class Zoo:
    """A list of recipes, filled by decorating functions that return a recipe's arguments."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []

    def __call__(self, function: Callable[[], Any] | None = None, **facts: Any) -> Any:
        if function is None:
            return lambda f: self(f, **facts)
        name = function.__name__.replace("_", "-")
        self.recipes.append(Recipe(name, **function(), **facts))
        return function


# -- optimizers, as functions of the parameters ------------------------------------------


def adam(lr: float = 1e-3) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.Adam(params, lr=lr)


def adamw(lr: float = 1e-3, weight_decay: float = 0.01) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay)


def sgd(lr: float = 0.1, momentum: float = 0.0) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=momentum)


# -- data ---------------------------------------------------------------------------------


@cache
def table(name: str) -> tuple[Tensor, Tensor]:
    """A data set of scikit-learn, features standardized, as everyone does it."""
    data = getattr(datasets, f"load_{name}")()
    x = torch.tensor(data.data, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    y = torch.tensor(data.target)
    return x, y if name != "diabetes" else ((y - y.mean()) / y.std()).float()


def rows(name: str, size: int = 32) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random batches of a table."""

    def batch() -> tuple[Tensor, Tensor]:
        x, y = table(name)
        chosen = torch.randint(len(x), (size,))
        return x[chosen], y[chosen]

    return batch


@cache
def digit_images() -> tuple[Tensor, Tensor]:
    data = datasets.load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    return (images - images.mean()) / images.std(), torch.tensor(data.target)


def digits(size: int = 32, scale: int = 1, channels: int = 1) -> Callable[[], Any]:
    """Batches of 8 x 8 digits, enlarged `scale` times, gray in every channel."""

    def batch() -> tuple[Tensor, Tensor]:
        images, labels = digit_images()
        chosen = torch.randint(len(images), (size,))
        x = images[chosen].expand(-1, channels, -1, -1)
        if scale > 1:
            x = nn.functional.interpolate(x, scale_factor=scale, mode="bilinear")
        return x.contiguous(), labels[chosen]

    return batch


def unit_digits(size: int = 32, scale: int = 1) -> Callable[[], Tensor]:
    """Batches of digits in [0, 1], as autoencoders and generators want them."""

    def batch() -> Tensor:
        images, _ = digit_images()
        low, high = images.min(), images.max()
        x = (images[torch.randint(len(images), (size,))] - low) / (high - low)
        return nn.functional.interpolate(x, scale_factor=scale) if scale > 1 else x

    return batch


def text(vocabulary: int = 50, length: int = 16, size: int = 16) -> Tensor:
    """Token sequences that a model can learn: the next is a function of the last, or noise."""
    rows_ = [torch.randint(vocabulary, (size,))]
    for _ in range(length):
        noise = torch.randint(vocabulary, (size,))
        follows = (rows_[-1] * 3 + 7) % vocabulary
        rows_.append(torch.where(torch.rand(size) < 0.1, noise, follows))
    return torch.stack(rows_, dim=1)


def next_tokens(vocabulary: int = 50, length: int = 16, size: int = 16) -> Callable[[], Any]:
    """Inputs and the token after each."""

    def batch() -> tuple[Tensor, Tensor]:
        tokens = text(vocabulary, length, size)
        return tokens[:, :-1], tokens[:, 1:]

    return batch


def waves(size: int = 32, length: int = 24) -> tuple[Tensor, Tensor]:
    """Noisy sine waves of one of four frequencies, and which."""
    labels = torch.randint(4, (size,))
    time = torch.linspace(0, 2 * math.pi, length)
    phase = torch.rand(size, 1) * 2 * math.pi
    wave = torch.sin((labels[:, None] + 1) * time + phase) * math.sqrt(2)
    return (wave + 0.2 * torch.randn(size, length)).unsqueeze(-1), labels


def blobs(size: int = 16, side: int = 16) -> tuple[Tensor, Tensor]:
    """Images with a bright square, and the mask of its pixels."""
    masks = torch.zeros(size, side, side, dtype=torch.long)
    for i in range(size):
        top, left = (int(v) for v in torch.randint(side // 2, (2,)))
        masks[i, top : top + side // 3, left : left + side // 3] = 1
    images = masks.unsqueeze(1).float() + 0.5 * torch.randn(size, 1, side, side)
    images = (images - 0.11) / 0.6
    return images, masks


def curve(size: int = 64) -> tuple[Tensor, Tensor]:
    """A noisy sine to regress on."""
    x = torch.rand(size, 1) * 4 - 2
    return x, torch.sin(2 * x) + 0.1 * torch.randn(size, 1)


def marked(size: int = 32, length: int = 12) -> tuple[Tensor, Tensor]:
    """Sequences of noise with a few vectors of one of four directions, and which."""
    labels = torch.randint(4, (size,))
    directions = 2 * nn.functional.one_hot(labels, 8).float()
    held = (torch.rand(size, length, 1) < 0.4).float()
    return torch.randn(size, length, 8) + held * directions[:, None], labels
