"""Small models of every family, and one observed step of any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.engine import Observer
from gradlint.graph import Operation

Loss = Callable[[nn.Module], Tensor]
"""Runs forward and loss on a model."""


def observed(model: nn.Module, loss: Loss, *, gains: bool = True, step: int = 0) -> Observer:
    """Observe one forward and one backward, read, and leave."""
    observer = Observer(model)
    with observer:
        observe(observer, loss, gains=gains, step=step)
    return observer


def observe(observer: Observer, loss: Loss, *, gains: bool = True, step: int = 0) -> Tensor:
    """Run one step of an observer that is in place; return the loss."""
    with observer.step(step):
        value = loss(observer.model)
        observer.forward_done(value, gains=gains)
        if value.requires_grad:
            observer.backward(value)
            observer.gradients(initial=step == 0)
        observer.read()
    return value


def values(observer: Observer, metric: str, path: str) -> list[float]:
    """Return what was observed of a metric at a path, in order."""
    return [o.value for o in observer.observations if (o.metric, o.site.path) == (metric, path)]


def value(observer: Observer, metric: str, path: str) -> float:
    """Return the only value of a metric at a path."""
    (found,) = values(observer, metric, path)
    return found


def paths(observer: Observer, metric: str) -> list[str]:
    """Return where a metric was observed, each path once."""
    return list(dict.fromkeys(o.site.path for o in observer.observations if o.metric == metric))


def kinds(observer: Observer, *, in_loss: bool = False) -> list[str]:
    """Return the kinds of the model's operations (or the loss's), in forward order."""
    return [op.kind for op in observer.graph if op.in_loss is in_loss]


def only(observer: Observer, kind: str) -> Operation:
    """Return the only operation of a kind."""
    (found,) = observer.graph.of_kind(kind)
    return found


@contextmanager
def kept_outputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep what every module returns, by its path: the test's own eyes."""
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, output, path=path: kept.setdefault(path, output) is None or None
        )
        for path, module in model.named_modules()
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def sigmoid_chain(depth: int = 10, width: int = 64, classes: int = 10) -> nn.Sequential:
    """`depth` times (Linear, Sigmoid) at torch's defaults, and a head."""
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(width, classes))


class Residual(nn.Module):
    """x + Linear(ReLU(Linear(x))), with or without a LayerNorm in front of the branch."""

    def __init__(self, width: int, *, normalized: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if normalized else nn.Identity()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.relu(self.fc1(self.norm(x))))


class ConvBlock(nn.Module):
    """A ResNet's basic block, its addition and its activations in place."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inner != outer:
            self.skip = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.skip(x)
        return self.relu(y)


def small_cnn(classes: int = 5) -> nn.Sequential:
    """Convolution, pooling, three residual blocks, pooling, a head."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        ConvBlock(8, 8),
        ConvBlock(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(16, classes),
    )


class GPTBlock(nn.Module):
    """A pre-LN transformer block, attention written by hand."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        split = self.qkv(self.ln1(x)).split(c, 2)
        q, k, v = (p.view(n, t, self.heads, c // self.heads).transpose(1, 2) for p in split)
        logits = q @ k.transpose(-2, -1) / math.sqrt(c // self.heads)
        logits = logits.masked_fill(torch.ones(t, t).tril() == 0, -math.inf)
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c)
        x = x + self.dropout(self.proj(mixed))
        return x + self.dropout(self.out(F.gelu(self.fc(self.ln2(x)))))


class GPT(nn.Module):
    """Embedding, positions, blocks, a final LayerNorm, a head."""

    def __init__(self, depth: int = 2, width: int = 16, words: int = 20, length: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = nn.ModuleList(GPTBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Tagger(nn.Module):
    """An LSTM over a sequence and a head on its last output."""

    def __init__(self, inputs: int = 5, hidden: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def mlp(*, dropout: float = 0.0) -> nn.Sequential:
    """Two hidden layers of ReLU."""
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = {
    "mlp": (
        lambda: mlp(dropout=0.3),
        lambda: (torch.randn(12, 6), torch.randint(0, 3, (12,))),
    ),
    "cnn": (small_cnn, lambda: (torch.randn(6, 3, 12, 12), torch.randint(0, 5, (6,)))),
    "lstm": (Tagger, lambda: (torch.randn(4, 7, 5), torch.randint(0, 3, (4,)))),
    "gpt": (GPT, lambda: (torch.randint(0, 20, (3, 8)), torch.randint(0, 20, (3, 8)))),
}
"""Name to a function that builds a model and one that draws a batch for it."""


def cross_entropy(inputs: Tensor, targets: Tensor) -> Loss:
    """Return the loss of a classifier on a batch; of every position of a sequence."""

    def loss(model: nn.Module) -> Tensor:
        return F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())

    return loss
