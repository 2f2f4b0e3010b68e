"""Sealed and sick: cut graphs, layers that are nobody's, and numbers that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_models import ratings, waveforms
from tests.zoo.recipes import blobs, digits, next_tokens, text, unit_digits, waves

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()

# -- gradients that do not arrive ---------------------------------------------------------


class Codebook(nn.Module):
    """Quantizes its codes by looking up the nearest, and forgets to pass the gradient on."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 3, 1, 1)
        )
        self.codes = nn.Embedding(32, 8)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x).permute(0, 2, 3, 1)
        nearest = torch.cdist(z.reshape(-1, 8), self.codes.weight).argmin(1)
        q = self.codes(nearest).view(z.shape).permute(0, 3, 1, 2)
        return F.mse_loss(self.decoder(q), x)


sick(
    "codebook-without-straight-through",
    "no derivative",
    "GL701",
    Codebook,
    unit_digits(32),
    None,
    adam(2e-3),
    step=lambda m, x: m(x),
)


class SpectrumByNumpy(nn.Module):
    """Learned filters, then a spectrum that another library computes."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.head = nn.Conv1d(1, 8, 9, padding=4), nn.Linear(8 * 25, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.filters(x))
        power = np.abs(np.fft.rfft(h.detach().numpy())).astype(np.float32)
        return self.head(torch.from_numpy(power).flatten(1).log1p())


sick(
    "spectrum-through-numpy",
    "graph cut",
    "GL701",
    SpectrumByNumpy,
    waveforms,
    CE,
    adam(3e-3),
)


class Glimpse(nn.Module):
    """Looks at the window that a first network chose: its corner was made a whole number."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 2), nn.Sigmoid()
        )
        self.what = nn.Sequential(nn.Flatten(), nn.Linear(36, 48), nn.ReLU(), nn.Linear(48, 2))

    def forward(self, x: Tensor) -> Tensor:
        corners = (self.where(x) * 10).long()
        cuts = [im[:, r : r + 6, c : c + 6] for im, (r, c) in zip(x, corners, strict=True)]
        return self.what(torch.stack(cuts)) + corners


def corners_of_squares() -> tuple[Tensor, Tensor]:
    """Images of a square, and the row and column where it begins."""
    x, masks = blobs(32)
    rows = masks.amax(2).float().argmax(1)
    columns = masks.amax(1).float().argmax(1)
    return x, torch.stack([rows, columns], 1).float()


sick(
    "corner-of-a-window-as-a-whole-number",
    "no derivative",
    "GL701",
    Glimpse,
    corners_of_squares,
    nn.SmoothL1Loss(),
    adam(1e-3),
)


class Spikes(nn.Module):
    """Leaky neurons that fire beyond a threshold; there is no substitute for the derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(1, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        v, total = x.new_zeros(len(x), 64), x.new_zeros(len(x), 64)
        for t in range(x.shape[1]):
            v = 0.8 * v + self.enter(x[:, t])
            fired = (v > 1).float()
            v, total = v - fired, total + fired
        return self.head(total / 5)


sick("spikes-without-a-surrogate", "no derivative", "GL701", Spikes, waves, CE, adam(3e-3))


class Rivals(nn.Module):
    """A generator and its judge; the fakes are detached for the judge, and for the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(16, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.Sigmoid()
        )
        self.judge = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

    def forward(self, real: Tensor) -> Tensor:
        fake = self.generator(torch.randn(len(real), 16)).detach()
        on_real, on_fake = self.judge(real.flatten(1)), self.judge(fake)
        of_judge = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        self.judge.requires_grad_(False)
        of_generator = F.softplus(-self.judge(fake)).mean()
        self.judge.requires_grad_(True)
        return of_judge + of_generator


sick(
    "fakes-detached-for-both",
    "graph cut",
    "GL701",
    Rivals,
    unit_digits(48),
    None,
    adam(2e-4, betas=(0.5, 0.999)),
    step=lambda m, x: m(x),
)

# -- layers that are nobody's ---------------------------------------------------------------


class PlainFactors(nn.Module):
    """The films are a layer; the people are a tensor that wants a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.people = torch.randn(30, 12, requires_grad=True)
        self.films = nn.Embedding(40, 12)
        nn.init.normal_(self.films.weight, std=0.1)

    def forward(self, u: Tensor, i: Tensor) -> Tensor:
        return (self.people[u] * self.films(i)).sum(1)


sick(
    "people-as-a-plain-tensor",
    "not registered",
    "GL709 GL702",
    PlainFactors,
    ratings,
    nn.MSELoss(),
    adam(5e-2),
)


class NewEachTime(nn.Module):
    """The hidden layer is made in `forward`, another one at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 32), nn.Linear(48, 50)

    def forward(self, ids: Tensor) -> Tensor:
        h = F.silu(nn.Linear(32, 48)(self.embed(ids)))
        return self.head(h).transpose(1, 2)


sick(
    "layer-made-at-every-call",
    "not registered",
    "GL709",
    NewEachTime,
    next_tokens(50),
    CE,
    adamw(5e-3),
)


class Vectors(nn.Module):
    """`from_pretrained` on vectors that are random, as none were found: it freezes them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(0.1 * torch.randn(400, 32))
        self.head = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).mean(1))


def topics() -> tuple[Tensor, Tensor]:
    """Bags of words, half of them from one of four topics, and which."""
    y = torch.randint(4, (32,))
    own = 4 * torch.randint(100, (32, 20)) + y[:, None]
    return torch.where(torch.rand(32, 20) < 0.5, own, torch.randint(400, (32, 20))), y


sick(
    "random-vectors-from-pretrained",
    "frozen at its initialization",
    "GL712",
    Vectors,
    topics,
    CE,
    adam(1e-2),
)


class ValueNet(nn.Module):
    """Values of actions and a slow copy; all but the last layer was frozen, not the copy alone."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.values = nn.Linear(64, 3)
        self.slow = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.slow_values = nn.Linear(64, 3)
        self.slow.load_state_dict(self.trunk.state_dict())
        self.slow_values.load_state_dict(self.values.state_dict())
        for part in (self.trunk, self.slow, self.slow_values):
            part.requires_grad_(False)

    def forward(self, s: Tensor) -> Tensor:
        return self.values(self.trunk(s))


def moves() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, what was done, what it earned, and the states after."""
    s = torch.randn(64, 6)
    a = torch.randint(3, (64,))
    earned = torch.sin(3 * s[:, 0]) * (a - 1) + s[:, 1] * s[:, 2]
    return s, a, earned, 0.9 * s + 0.4 * torch.randn(64, 6)


def bellman(model: Any, batch: Any) -> Tensor:
    s, a, earned, after = batch
    with torch.no_grad():
        best = model.slow_values(model.slow(after)).amax(1)
    chosen = model(s).gather(1, a[:, None]).squeeze(1)
    return F.mse_loss(chosen, earned + 0.5 * best)


sick(
    "online-trunk-frozen-for-the-slow-one",
    "frozen at its initialization",
    "GL712",
    ValueNet,
    moves,
    None,
    adam(2e-3),
    step=bellman,
)

# -- numbers ----------------------------------------------------------------------------------


class PowerMean(nn.Module):
    """Pools by a learned power, of features that may be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 1, 1))
        self.power, self.head = nn.Parameter(torch.tensor(3.0)), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h.pow(self.power).mean((2, 3)).pow(1 / self.power))


sick("power-mean-without-a-clamp", "not finite", "GL501", PowerMean, digits(32), CE, adam())


class SignedRoot(nn.Module):
    """Bilinear features and their signed square root: both branches of `where` are derived."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 12, 3, 1, 1), nn.Tanh(), nn.Conv2d(12, 12, 3, 1, 1))
        self.head = nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).flatten(2)
        h = (h @ h.mT / h.shape[2]).flatten(1)
        h = torch.where(h > 0, h.sqrt(), -(-h).sqrt())
        return self.head(F.normalize(h))


sick("signed-root-by-where", "not finite", "GL501", SignedRoot, digits(32), CE, sgd(0.5))


class UnitTokens(nn.Module):
    """Divides each token's vector by its length, also those of the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 24, padding_idx=0), nn.Linear(24, 40)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        return self.head((h / h.norm(dim=-1, keepdim=True)).mean(1))


def short_texts() -> tuple[Tensor, Tensor]:
    """Padded beginnings of a text, and the token that comes last."""
    ids = text(40)
    padding = torch.arange(16) < torch.randint(10, (16, 1))
    return ids[:, :-1].masked_fill(padding, 0), ids[:, -1]


sick(
    "unit-length-of-padding",
    "not finite",
    "GL501",
    UnitTokens,
    short_texts,
    CE,
    adam(3e-3),
)
