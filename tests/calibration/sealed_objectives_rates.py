"""Sealed and sick: scales of the inputs, and an optimizer's rates, groups and arguments."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam
from tests.calibration.sealed_dense import friedman, stack
from tests.calibration.sealed_models import circles, waveforms
from tests.zoo.recipes import digits, next_tokens, rows, unit_digits

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()

# -- inputs -------------------------------------------------------------------------------------


def visits() -> tuple[Tensor, Tensor]:
    """Ten standardized features and the second of the visit, counted since 1970."""
    x, y = friedman()
    at = 1.7e9 + 3e7 * torch.rand(len(x), 1)
    return torch.cat([x, at], 1), y


sick(
    "seconds-since-1970-among-the-features",
    "inputs not normalized",
    "GL606",
    lambda: stack(11, 64, 64, 1, act=nn.ReLU),
    visits,
    nn.MSELoss(),
    adam(1e-3),
)


def with_missing() -> tuple[Tensor, Tensor]:
    """Standardized measurements, a tenth of them missing and written as -999."""
    x, y = rows("breast_cancer", 64)()
    return x.masked_fill(torch.rand_like(x) < 0.1, -999.0), y


sick(
    "missing-values-written-as-minus-999",
    "inputs not normalized",
    "GL606",
    lambda: stack(30, 64, 64, 2, act=nn.Tanh),
    with_missing,
    CE,
    adam(3e-3),
)


class RawSteps(nn.Module):
    """Predicts noise; the step of diffusion comes as the number it is."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(65, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 64)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([x.flatten(1), t.float()[:, None]], 1)).view(x.shape)


def noised() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Digits under noise, one of a thousand steps, and the noise."""
    x, t = 2 * unit_digits(64)() - 1, torch.randint(1000, (64,))
    kept = torch.cos(t / 1000 * torch.pi / 2)[:, None, None, None]
    noise = torch.randn_like(x)
    return (kept * x + (1 - kept**2).sqrt() * noise, t), noise


sick(
    "diffusion-step-as-a-number-up-to-a-thousand",
    "inputs not normalized",
    "GL606",
    RawSteps,
    noised,
    nn.MSELoss(),
    adam(1e-3),
)

# -- rates --------------------------------------------------------------------------------------

sick(
    "adadelta-at-the-rate-of-adam",
    "learning rate too low",
    "GL402",
    lambda: nn.Sequential(nn.Flatten(), stack(64, 96, 96, 10, act=nn.ReLU)),
    digits(64),
    CE,
    lambda m: torch.optim.Adadelta(m.parameters(), lr=1e-3),
)
sick(
    "rate-of-sgd-kept-for-rmsprop",
    "learning rate too high",
    "GL401",
    lambda: nn.Sequential(
        nn.Conv1d(1, 24, 7, 2, 3),
        nn.GELU(),
        nn.Conv1d(24, 48, 5, 2, 2),
        nn.GELU(),
        nn.Conv1d(48, 48, 5, 2, 2),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    ),
    waveforms,
    CE,
    lambda m: torch.optim.RMSprop(m.parameters(), lr=0.1),
)
sick(
    "momentum-of-0-9-given-as-decay",
    "weight decay",
    "GL408",
    lambda: stack(64, 96, 96, 10, act=nn.ReLU),
    rows("digits", 64),
    CE,
    lambda m: torch.optim.SGD(m.parameters(), 0.1, weight_decay=0.9),
)
sick(
    "a-thousandth-for-each-layer-further-down",
    "rates that vanish with depth",
    "GL402 GL406",
    lambda: stack(2, 64, 64, 64, 64, 2, act=nn.ReLU),
    circles,
    CE,
    lambda m: _discriminative(m, 1e-3),
)


def _discriminative(model: Any, factor: float) -> torch.optim.Optimizer:
    """Lower the rate from layer to layer, as for fine-tuning."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)][::-1]
    groups = [{"params": m.parameters(), "lr": 0.1 * factor**i} for i, m in enumerate(layers)]
    return torch.optim.SGD(groups, momentum=0.9)


# -- what the optimizer holds ---------------------------------------------------------------------


class Tagger(nn.Module):
    """Convolutions over embedded tokens, and a head for each position."""

    def __init__(self, k: int = 50) -> None:
        super().__init__()
        self.embed = nn.Embedding(k, 32)
        self.body = nn.ModuleList(nn.Conv1d(32, 32, 2) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, k)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids).transpose(1, 2)
        for layer in self.body:
            h = h + F.gelu(layer(F.pad(h, (1, 0))))
        return self.head(self.norm(h.transpose(1, 2))).transpose(1, 2)


def _decayed_and_not(model: nn.Module) -> torch.optim.Optimizer:
    """Decay the weights of linear layers, and no bias or norm; the rest is in neither list."""
    decayed, plain = [], []
    for m in model.modules():
        if isinstance(m, nn.Linear):
            decayed.append(m.weight)
            plain.append(m.bias)
        elif isinstance(m, nn.LayerNorm):
            plain += [m.weight, m.bias]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, 5e-3)


sick(
    "neither-decayed-nor-plain",
    "not in the optimizer",
    "GL702",
    Tagger,
    next_tokens(50),
    CE,
    _decayed_and_not,
)


class Shops(nn.Module):
    """Embedded categories beside numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.numbers = nn.Embedding(60, 16), nn.Linear(4, 16)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(32, 1))

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.embed(ids), self.numbers(x)], 1))


def sales() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Which shop, what weather, and what it sold; standardized."""
    of = torch.Generator().manual_seed(8)
    shops = torch.randn(60, generator=of)
    ids, x = torch.randint(60, (64,)), torch.randn(64, 4)
    return (ids, x), (shops[ids] + 0.4 * x[:, 0])[:, None]


def _then_new_vectors(model: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    model.embed.weight = nn.Parameter(0.1 * torch.randn(60, 16))
    return optimizer


sick(
    "vectors-put-in-behind-the-optimizer",
    "foreign parameters",
    "GL703 GL702",
    Shops,
    sales,
    nn.MSELoss(),
    _then_new_vectors,
)
