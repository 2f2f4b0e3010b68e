"""Trainings whose steps are timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Workload:
    """A model with its batch; `block` steps of a variant are timed together."""

    name: str
    build: Callable[[], tuple[nn.Module, Tensor, Tensor]]
    block: int
    blocks: int
    """Rotations through all variants."""


def perceptron() -> tuple[nn.Module, Tensor, Tensor]:
    sizes = [784, 512, 512, 512]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(512, 10))
    return model, torch.randn(128, 784), torch.randint(0, 10, (128,))


def tiny() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(
        nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    return model, torch.randn(32, 32), torch.randint(0, 2, (32,))


class Words(nn.Module):
    """A language model of two recurrent layers."""

    def __init__(self, words: int = 1000, size: int = 200) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.lstm = nn.LSTM(size, size, num_layers=2)
        self.head = nn.Linear(size, words)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embedding(tokens))
        logits: Tensor = self.head(hidden)
        return logits.flatten(0, 1)


def recurrent() -> tuple[nn.Module, Tensor, Tensor]:
    return Words(), torch.randint(0, 1000, (35, 20)), torch.randint(0, 1000, (700,))


class Block(nn.Module):
    """Attention and feed-forward, normalized before."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.act, self.down = (
            nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, size))
        added: Tensor = x + self.down(self.act(self.up(self.norm2(x))))
        return added


class Transformer(nn.Module):
    """A small GPT."""

    def __init__(self, layers: int = 6, size: int = 256, words: int = 500) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(words, size), nn.Embedding(128, size)
        self.blocks = nn.Sequential(*[Block(size, 4) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits.flatten(0, 1)


def gpt() -> tuple[nn.Module, Tensor, Tensor]:
    return Transformer(), torch.randint(0, 500, (4, 64)), torch.randint(0, 500, (256,))


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act1, self.act2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        around = stride != 1 or inputs != outputs
        self.around = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        ) if around else nn.Identity()  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        out: Tensor = self.act2(y + self.around(x))
        return out


def resnet18() -> tuple[nn.Module, Tensor, Tensor]:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
        inputs = outputs
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100))
    return model, torch.randn(16, 3, 64, 64), torch.randint(0, 100, (16,))


WORKLOADS = (
    Workload("MLP 784-512×3, batch 128", perceptron, block=8, blocks=18),
    Workload("LSTM 2×200, 35×20 tokens", recurrent, block=4, blocks=12),
    Workload("GPT 6×256, 4×64 tokens", gpt, block=2, blocks=9),
    Workload("ResNet-18, 16 images of 64 px", resnet18, block=2, blocks=8),
    Workload("MLP 2×32, batch 32", tiny, block=100, blocks=25),
)
