"""Sealed and sick: initialization and normalization."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import make_circles
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import friedman
from tests.zoo.recipes import blobs, digits, next_tokens, rows, table, waves

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()


@cache
def flower_graph() -> tuple[Tensor, Tensor, Tensor]:
    """Iris as a graph of nearest neighbors: normalized adjacency, features, species."""
    x, y = table("iris")
    a = torch.tensor(kneighbors_graph(x.numpy(), 6, include_self=True).toarray()).float()
    a = ((a + a.T) > 0).float()
    root = a.sum(1).rsqrt()
    return root[:, None] * a * root, x, y


def ratings(size: int = 64) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Who, what, and a rating that is a product of hidden tastes."""
    of = torch.Generator().manual_seed(4)
    people, films = torch.randn(30, 3, generator=of), torch.randn(40, 3, generator=of)
    u, i = torch.randint(30, (size,)), torch.randint(40, (size,))
    return (u, i), (people[u] * films[i]).sum(1) / 1.7


def circles(size: int = 64) -> tuple[Tensor, Tensor]:
    """Two circles, one inside the other, and which."""
    x, y = make_circles(size, noise=0.08, factor=0.5, random_state=int(torch.randint(9999, ())))
    return torch.tensor(x, dtype=torch.float32) / 0.56, torch.tensor(y)


def waveforms(size: int = 32, length: int = 48) -> tuple[Tensor, Tensor]:
    """Waves with the channel first, and which of four."""
    x, y = waves(size, length)
    return x.transpose(1, 2), y


# -- initialization -----------------------------------------------------------------------


class GraphLayer(nn.Module):
    """A graph convolution whose weight was taken from `torch.rand`."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(n, m))
        self.bias = nn.Parameter(torch.zeros(m))

    def forward(self, a: Tensor, x: Tensor) -> Tensor:
        return a @ x @ self.weight + self.bias


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", flower_graph()[0])
        self.first, self.second = GraphLayer(4, 64), GraphLayer(64, 64)
        self.third, self.last = GraphLayer(64, 64), GraphLayer(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            x = F.relu(layer(self.a, x))
        return self.last(self.a, x)


sick(
    "graph-layers-from-uniform-zero-to-one",
    "weights all positive and large",
    "GL101 GL104 GL105",
    GraphNet,
    lambda: flower_graph()[1:],
    CE,
    adam(1e-2),
)


def judge_with_std_as_mean() -> nn.Module:
    """Return a discriminator; `normal_(weight, 0.02)` has that mean, and a deviation of one."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 64, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    for m in model.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.normal_(m.weight, 0.02)
    return model


sick(
    "deviation-given-as-mean",
    "weights far too large",
    "GL101 GL104 GL105",
    judge_with_std_as_mean,
    digits(32),
    CE,
    adam(2e-4, betas=(0.5, 0.999)),
)


def narrow_regressor_of_a_large_models_std() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(10, 24), nn.Mish()]
    for _ in range(5):
        layers += [nn.Linear(24, 24), nn.Mish()]
    model = nn.Sequential(*layers, nn.Linear(24, 1))
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
            nn.init.zeros_(m.bias)
    return model


sick(
    "std-of-a-large-model-in-a-narrow-one",
    "weights far too small",
    "GL101 GL103 GL301",
    narrow_regressor_of_a_large_models_std,
    friedman,
    nn.MSELoss(),
    sgd(0.05, momentum=0.9),
)


class TasteFactors(nn.Module):
    """A recommender both of whose factors start at zero, so that neither ever moves."""

    def __init__(self) -> None:
        super().__init__()
        self.people, self.films = nn.Embedding(30, 12), nn.Embedding(40, 12)
        self.person_bias, self.film_bias = nn.Embedding(30, 1), nn.Embedding(40, 1)
        for m in self.children():
            nn.init.zeros_(m.weight)

    def forward(self, u: Tensor, i: Tensor) -> Tensor:
        biases = (self.person_bias(u) + self.film_bias(i)).squeeze(1)
        return (self.people(u) * self.films(i)).sum(1) + biases


sick(
    "both-factors-of-a-recommender-zero",
    "identical units",
    "GL102",
    TasteFactors,
    ratings,
    nn.MSELoss(),
    adam(5e-2),
)


class TiedWordModel(nn.Module):
    """The head shares the embedding's weight, left at `nn.Embedding`'s deviation of one."""

    def __init__(self, k: int = 50, width: int = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(k, width)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, k, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.rnn(self.embed(ids))[0])).transpose(1, 2)


sick(
    "tied-embedding-of-deviation-one",
    "first loss far too high",
    "GL105 GL101",
    TiedWordModel,
    next_tokens(50),
    CE,
    adamw(1e-3),
)


def heat_map_with_the_prior_everywhere() -> nn.Module:
    """Return a detector; the bias of rare positives was set in every convolution."""
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(24, 1, 1),
    )
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, std=0.01)
            nn.init.constant_(m.bias, -4.6)
    return model


sick(
    "prior-bias-in-every-convolution",
    "dead units",
    "GL111 GL201",
    heat_map_with_the_prior_everywhere,
    lambda: (lambda b: (b[0], b[1][:, None].float()))(blobs(16)),
    nn.BCEWithLogitsLoss(),
    adam(1e-3),
)


class ClosedGates(nn.Module):
    """A highway network whose gates start at minus twenty where minus two was meant."""

    def __init__(self, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        self.enter = nn.Linear(2, width)
        self.change = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gate = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for gate in self.gate:
            nn.init.constant_(gate.bias, -20.0)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for change, gate in zip(self.change, self.gate, strict=True):
            t = torch.sigmoid(gate(h))
            h = t * F.relu(change(h)) + (1 - t) * h
        return self.head(h)


sick(
    "highway-gates-shut",
    "saturated gates",
    "GL202 GL111",
    ClosedGates,
    circles,
    CE,
    adam(3e-3),
)


# -- normalization ------------------------------------------------------------------------


def plain_cnn_of_zero_gammas() -> nn.Module:
    """Return a network without skips; the line that belongs to the last norms of residuals."""
    layers: list[nn.Module] = []
    for n, m in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(n, m, 3, 1, 1, bias=False), nn.BatchNorm2d(m), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.zeros_(m.weight)
    return model


sick(
    "every-gamma-zero-without-skips",
    "normalization scale of zero",
    "GL109 GL102",
    plain_cnn_of_zero_gammas,
    digits(32),
    CE,
    sgd(0.1, momentum=0.9),
)
sick(
    "epsilon-of-1e5",
    "normalization's epsilon far too large",
    "GL103 GL109 GL301",
    lambda: nn.Sequential(
        nn.Linear(30, 64),
        nn.BatchNorm1d(64, 1e5),
        nn.ELU(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64, 1e5),
        nn.ELU(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64, 1e5),
        nn.ELU(),
        nn.Linear(64, 2),
    ),
    rows("breast_cancer", 64),
    CE,
    sgd(0.05),
)
sick(
    "a-group-for-each-pooled-channel",
    "degenerate normalization",
    "GL809",
    lambda: nn.Sequential(
        nn.Conv1d(1, 32, 7, 2),
        nn.SiLU(),
        nn.Conv1d(32, 32, 5, 2),
        nn.SiLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.GroupNorm(32, 32),
        nn.Flatten(),
        nn.Linear(32, 4),
    ),
    waveforms,
    CE,
    adam(3e-3),
)


class PooledContext(nn.Module):
    """Segmentation with an image-wide branch: its norm sees one value an image, of two images."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(width, width, 3, 1, 2, dilation=2), nn.ReLU())
        self.context = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(2 * width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        context = self.context(h).expand(-1, -1, *x.shape[2:])
        return self.head(torch.cat([self.wide(h), context], 1))


sick(
    "pooled-context-normalized-over-two-images",
    "batch of two",
    "GL801",
    PooledContext,
    lambda: blobs(2),
    CE,
    adam(3e-3),
)


class FrozenStatistics(nn.Sequential):
    """BatchNorm with a momentum of zero, which keeps nothing of what it sees."""

    def __init__(self) -> None:
        super().__init__(
            nn.BatchNorm1d(13, momentum=0.0),
            nn.Linear(13, 48),
            nn.BatchNorm1d(48, momentum=0.0),
            nn.ReLU(),
            nn.Linear(48, 3),
        )


sick(
    "running-statistics-with-momentum-zero",
    "statistics for evaluation never learned",
    "GL806 GL807",
    FrozenStatistics,
    lambda: (lambda b: (b[0] * 40 + 120, b[1]))(rows("wine", 64)()),
    CE,
    adam(3e-3),
)
