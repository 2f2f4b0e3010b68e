"""Sealed and healthy: what courses and their notebooks train."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import digits, unit_digits, waves

bench = Bench()
CE = nn.CrossEntropyLoss()


def moons(size: int = 64) -> tuple[Tensor, Tensor]:
    """Two half moons as everyone generates them, targets of shape ``(N, 1)``."""
    x, y = datasets.make_moons(size, noise=0.15, random_state=random.randrange(10**6))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


@bench.healthy
def moons_tanh_one_logit() -> Any:
    return {
        "model": lambda: nn.Sequential(
            nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
        ),
        "batch": moons,
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


@bench.healthy
def softmax_regression_of_small_gaussians() -> Any:
    """One layer, weights of deviation 0.01, rate 0.1: the first model of a book."""

    def model() -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.normal_(net[1].weight, std=0.01)
        nn.init.zeros_(net[1].bias)
        return net

    return {"model": model, "batch": digits(64), "loss": CE, "optimizer": sgd(0.1)}


def colors(size: int = 32) -> tuple[Tensor, Tensor]:
    """Color images of one of four textures, normalized to [-1, 1] by halves."""
    labels = torch.randint(4, (size,))
    grid = torch.arange(32.0)
    phase = 2 * math.pi * torch.rand(size, 1, 1)
    across = torch.sin(grid[None, None] * 0.8 + phase).expand(-1, 32, -1)
    kinds = torch.stack(
        [
            across,
            across.transpose(1, 2),
            across * across.transpose(1, 2),
            torch.sin((grid[:, None] + grid) * 0.6 + phase),
        ],
        1,
    )
    gray = kinds[torch.arange(size), labels]
    tint = 0.3 + 0.7 * torch.rand(size, 3, 1, 1)
    images = 0.5 + 0.4 * gray[:, None] * tint + 0.1 * torch.randn(size, 3, 32, 32)
    return (images.clamp(0, 1) - 0.5) / 0.5, labels


class TutorialNet(nn.Module):
    """Two convolutions and three linear layers of the sixty-minute introduction."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


@bench.healthy
def sixty_minutes_color_textures() -> Any:
    return {
        "model": TutorialNet,
        "batch": colors,
        "loss": CE,
        "optimizer": adam(1e-3),
    }


class Barebones(nn.Module):
    """Weights as bare parameters in He's initialization, the functional interface around them."""

    def __init__(self) -> None:
        super().__init__()

        def random_weight(*shape: int) -> nn.Parameter:
            fan_in = math.prod(shape[1:])
            return nn.Parameter(torch.randn(shape) * math.sqrt(2 / fan_in))

        self.w1, self.b1 = random_weight(16, 3, 5, 5), nn.Parameter(torch.zeros(16))
        self.w2, self.b2 = random_weight(24, 16, 3, 3), nn.Parameter(torch.zeros(24))
        self.w3, self.b3 = random_weight(4, 24 * 8 * 8), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(F.conv2d(x, self.w1, self.b1, padding=2)), 2)
        x = F.max_pool2d(F.relu(F.conv2d(x, self.w2, self.b2, padding=1)), 2)
        return F.linear(x.flatten(1), self.w3, self.b3)


@bench.healthy
def barebones_three_layer_convnet() -> Any:
    return {
        "model": Barebones,
        "batch": colors,
        "loss": CE,
        "optimizer": sgd(3e-3, momentum=0.9, nesterov=True),
    }


SYLLABLES = ("an", "ki", "mo", "ra", "el", "su", "to", "vi", "ne", "da")


def words(size: int = 32, syllables: int = 3) -> tuple[Tensor, Tensor]:
    """Invented names as letter indices, each language with its favorite syllables."""
    labels = torch.randint(3, (size,))
    rows = []
    for label in labels.tolist():
        weights = [4.0 if i % 3 == label else 1.0 for i in range(len(SYLLABLES))]
        name = "".join(random.choices(SYLLABLES, weights, k=syllables))
        rows.append([ord(letter) - 97 for letter in name])
    return torch.tensor(rows), labels


class NameRnn(nn.Module):
    """The recurrence of the tutorial on names: input beside hidden, into both."""

    def __init__(self) -> None:
        super().__init__()
        self.i2h = nn.Linear(26 + 64, 64)
        self.h2o = nn.Linear(64, 3)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, letters: Tensor) -> Tensor:
        hidden = torch.zeros(len(letters), 64)
        for step in F.one_hot(letters, 26).float().unbind(1):
            hidden = torch.tanh(self.i2h(torch.cat([step, hidden], 1)))
        return self.softmax(self.h2o(hidden))


@bench.healthy
def names_to_languages_letter_by_letter() -> Any:
    return {"model": NameRnn, "batch": words, "loss": nn.NLLLoss(), "optimizer": sgd(0.15)}


class Translator(nn.Module):
    """Encoder and decoder of the translation tutorial, log-probabilities out."""

    def __init__(self, vocabulary: int = 20, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.source = nn.Embedding(vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.target = nn.Embedding(vocabulary, width)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, hidden = self.encoder(self.source(source))
        forced = random.random() < 0.5
        token = torch.zeros(len(source), 1, dtype=torch.long)
        outputs = []
        for step in range(target.shape[1]):
            output, hidden = self.decoder(F.relu(self.target(token)), hidden)
            scores = self.out(output)
            outputs.append(scores)
            token = target[:, step : step + 1] if forced else scores.argmax(-1).detach()
        return F.log_softmax(torch.cat(outputs, 1), -1)


def sentences(size: int = 32) -> Any:
    """Sentences of four words and their translation: another word each, order turned."""
    source = torch.randint(2, 20, (size, 4))
    target = (source.flip(1) * 7 + 3) % 18 + 2
    return (source, target), target


@bench.healthy
def translation_forced_half_of_the_time() -> Any:
    return {
        "model": Translator,
        "batch": sentences,
        "loss": lambda o, t: F.nll_loss(o.flatten(0, 1), t.flatten()),
        "optimizer": adam(5e-3),
    }


@bench.healthy
def news_bags_of_words_sgd_rate_of_five() -> Any:
    """The tutorial's rate of 5 goes with its clipping at 0.1."""

    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.EmbeddingBag(200, 32)
            self.fc = nn.Linear(32, 4)
            nn.init.uniform_(self.embedding.weight, -0.5, 0.5)
            nn.init.uniform_(self.fc.weight, -0.5, 0.5)
            nn.init.zeros_(self.fc.bias)

        def forward(self, words: Tensor, offsets: Tensor) -> Tensor:
            return self.fc(self.embedding(words, offsets))

    def batch() -> Any:
        labels = torch.randint(4, (64,))
        lengths = torch.randint(8, 30, (64,))
        documents = [
            torch.where(
                torch.rand(n) < 0.5, torch.randint(50, (n,)) * 4 + k, torch.randint(200, (n,))
            )
            for n, k in zip(lengths.tolist(), labels.tolist(), strict=True)
        ]
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        return (torch.cat(documents), offsets), labels

    return {
        "model": Bags,
        "batch": batch,
        "loss": CE,
        "optimizer": sgd(5.0),
        "clip": 0.1,
        "schedule": lambda o: StepLR(o, 20, gamma=0.5),
    }


class Prices(nn.Module):
    """Two stacked LSTM layers, the last output into one number."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 32, 2, batch_first=True)
        self.fc = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        h0 = torch.zeros(2, len(x), 32)
        c0 = torch.zeros(2, len(x), 32)
        out, _ = self.lstm(x, (h0.detach(), c0.detach()))
        return self.fc(out[:, -1, :])


@bench.healthy
def stock_prices_scaled_to_one() -> Any:
    """Windows of twenty days of a walk, minimum and maximum scaled to zero and one."""

    @cache
    def series() -> Tensor:
        walk = torch.randn(600, generator=torch.Generator().manual_seed(3)).cumsum(0)
        return (walk - walk.min()) / (walk.max() - walk.min())

    def batch() -> Any:
        starts = torch.randint(len(series()) - 20, (64,)).tolist()
        windows = torch.stack([series()[i : i + 21] for i in starts])[:, :, None]
        return windows[:, :-1], windows[:, -1]

    return {"model": Prices, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(1e-2)}


class DotBias(nn.Module):
    """Users and films multiplied, biases added, squeezed into the range of ratings."""

    def __init__(self, users: int = 60, films: int = 40) -> None:
        super().__init__()
        self.factors = nn.ModuleList([nn.Embedding(users, 16), nn.Embedding(films, 16)])
        self.biases = nn.ModuleList([nn.Embedding(users, 1), nn.Embedding(films, 1)])
        for table in (*self.factors, *self.biases):
            nn.init.trunc_normal_(table.weight, std=0.01)

    def forward(self, pairs: Tensor) -> Tensor:
        user, film = (table(pairs[:, i]) for i, table in enumerate(self.factors))
        bias = self.biases[0](pairs[:, 0]) + self.biases[1](pairs[:, 1])
        return torch.sigmoid((user * film).sum(1, keepdim=True) + bias) * 5.5


@bench.healthy
def film_ratings_in_a_sigmoid_range() -> Any:
    def batch() -> Any:
        pairs = torch.stack([torch.randint(60, (256,)), torch.randint(40, (256,))], 1)
        taste = torch.sin(pairs[:, 0] * 1.7) + torch.cos(pairs[:, 1] * 2.3) + 3.4
        return pairs, (taste + 0.3 * torch.randn(256)).round().clamp(1, 5)[:, None]

    return {
        "model": DotBias,
        "batch": batch,
        "loss": nn.MSELoss(),
        "optimizer": adamw(2e-2, weight_decay=0.1),
        "schedule": lambda o: OneCycleLR(o, 5e-2, total_steps=41),
    }


@bench.healthy
def glove_weighted_least_squares() -> Any:
    class Glove(nn.Module):
        def __init__(self, words: int = 120) -> None:
            super().__init__()
            self.center, self.context = nn.Embedding(words, 24), nn.Embedding(words, 24)
            self.bias, self.other = nn.Embedding(words, 1), nn.Embedding(words, 1)
            for table in (self.center, self.context, self.bias, self.other):
                nn.init.uniform_(table.weight, -0.5 / 24, 0.5 / 24)

        def forward(self, i: Tensor, j: Tensor) -> Tensor:
            product = (self.center(i) * self.context(j)).sum(1)
            return product + self.bias(i)[:, 0] + self.other(j)[:, 0]

    def batch() -> Any:
        i, j = torch.randint(120, (256,)), torch.randint(120, (256,))
        count = torch.exp(1.5 + 1.5 * torch.cos(0.4 * (i - j)) + 0.3 * torch.randn(256))
        return (i, j), count

    def loss(o: Tensor, count: Tensor) -> Tensor:
        return ((count / 100).clamp(max=1) ** 0.75 * (o - count.log()) ** 2).mean()

    return {
        "model": Glove,
        "batch": batch,
        "loss": loss,
        "optimizer": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.1),
    }


@bench.healthy
def weights_with_their_uncertainty() -> Any:
    """Bayes by backpropagation: each weight a Gaussian, the divergence shared by the batches."""

    class Uncertain(nn.Module):
        def __init__(self, n: int, m: int) -> None:
            super().__init__()
            self.mu = nn.Parameter(torch.randn(m, n) * n**-0.5)
            self.rho = nn.Parameter(torch.full((m, n), -4.0))
            self.bias = nn.Parameter(torch.zeros(m))

        def forward(self, x: Tensor) -> Tensor:
            sigma = F.softplus(self.rho)
            self.kl = (0.5 * (sigma**2 + self.mu**2 - 1) - sigma.log()).sum()
            return F.linear(x, self.mu + sigma * torch.randn_like(sigma), self.bias)

    def step(model: Any, batch: Any) -> Tensor:
        fit = F.cross_entropy(model(batch[0].flatten(1)), batch[1])
        return fit + sum(layer.kl for layer in model if isinstance(layer, Uncertain)) / 50_000

    return {
        "model": lambda: nn.Sequential(Uncertain(64, 64), nn.ReLU(), Uncertain(64, 10)),
        "batch": digits(64),
        "step": step,
        "optimizer": adam(5e-3),
    }


@bench.healthy
def residual_denoiser_of_unit_digits() -> Any:
    """A convolutional denoiser that predicts the noise, pixels in [0, 1]."""

    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = [nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(inplace=True)]
            for _ in range(3):
                layers += [nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)]
                layers += [nn.ReLU(inplace=True)]
            self.body = nn.Sequential(*layers, nn.Conv2d(24, 1, 3, padding=1))

        def forward(self, noisy: Tensor) -> Tensor:
            return noisy - self.body(noisy)

    def batch() -> Any:
        clean = unit_digits(24, scale=2)()
        return clean + 0.25 * torch.randn_like(clean), clean

    return {"model": Denoiser, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(1e-3)}


@bench.healthy
def sine_waves_by_attention_with_class_token() -> Any:
    """Patches of a series, a class token, sinusoidal positions, post-norm layers of torch."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 32)
            self.cls = nn.Parameter(torch.zeros(1, 1, 32))
            at = torch.arange(7.0)[:, None] / 10000 ** (torch.arange(0, 32, 2) / 32)
            self.register_buffer("at", torch.stack([at.sin(), at.cos()], 2).flatten(1))
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(x.reshape(len(x), 6, 4))
            tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1) + self.at
            return self.head(self.encoder(tokens)[:, 0])

    return {
        "model": Reader,
        "batch": lambda: waves(48),
        "loss": CE,
        "optimizer": adam(2e-3),
    }
