"""Networks that faults are planted into; each is healthy as it stands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Act = Callable[[Tensor], Tensor]


def mlp(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU, last: nn.Module | None = None):
    """Linear layers with activations between them, in He's initialization."""
    layers: list[nn.Module] = []
    for index, (n, m) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(n, m))
        if act is nn.ReLU:
            nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
            nn.init.zeros_(layers[-1].bias)
        if index < len(sizes) - 2:
            layers.append(act())
    return nn.Sequential(*layers, *([last] if last else []))


class Dense(nn.Module):
    """The same, with the activation called as a function and a place for a fault."""

    def __init__(
        self, *sizes: int, act: Act = F.relu, at: int = 1, fault: Act | None = None,
        last: Act | None = None, he: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(sizes))
        for layer in self.layers:
            if he:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.act, self.at, self.fault, self.last = act, at, fault, last

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            if self.fault is not None and index == self.at:
                x = self.fault(x)
            x = layer(x)
            if index < len(self.layers) - 1:
                x = self.act(x)
        return x if self.last is None else self.last(x)


class Cnn(nn.Module):
    """Two convolutions, pooling, a head; `end` is what stands behind it."""

    def __init__(self, classes: int = 10, end: Act | None = None, fault: Act | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(32 * 4, classes)
        self.end, self.fault = end, fault

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        if self.fault is not None:
            x = self.fault(x)
        x = self.pool(F.relu(self.conv2(x)))
        x = self.fc(torch.flatten(x, 1))
        return x if self.end is None else self.end(x)


def deep_cnn(depth: int, act: Callable[[], nn.Module], width: int = 16) -> nn.Sequential:
    """Convolutions without normalization, torch's initialization, a linear head."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Conv2d(width if index else 1, width, 3, padding=1), act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


class Block(nn.Module):
    """A basic residual block with BatchNorm."""

    def __init__(self, n: int, m: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n, m, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(m)
        self.conv2 = nn.Conv2d(m, m, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(m)
        self.short = nn.Sequential()
        if stride > 1 or n != m:
            self.short = nn.Sequential(nn.Conv2d(n, m, 1, stride, bias=False), nn.BatchNorm2d(m))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


class ResNet(nn.Module):
    """Four residual blocks."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1))
        self.fc = nn.Linear(32, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(self.stem(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class UNet(nn.Module):
    """Two levels with a skip connection."""

    def __init__(self, end: Act | None = None) -> None:
        super().__init__()

        def double(n: int, m: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(n, m, 3, padding=1), nn.BatchNorm2d(m), nn.ReLU(inplace=True),
                nn.Conv2d(m, m, 3, padding=1), nn.BatchNorm2d(m), nn.ReLU(inplace=True),
            )  # fmt: skip

        self.down, self.middle = double(1, 8), double(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge = double(16, 8)
        self.out = nn.Conv2d(8, 1, 1)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        y = self.up(self.middle(F.max_pool2d(skip, 2)))
        y = self.out(self.merge(torch.cat([skip, y], 1)))
        return y if self.end is None else self.end(y)


class Recurrent(nn.Module):
    """Embedding or series, a recurrent layer, a head on the last state."""

    def __init__(
        self, kind: type[nn.RNNBase] = nn.LSTM, *, vocabulary: int = 0, inputs: int = 1,
        hidden: int = 32, classes: int = 4, end: Act | None = None, fault: Act | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 16) if vocabulary else None
        self.rnn = kind(16 if vocabulary else inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)
        self.end, self.fault = end, fault

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.embed is None else self.embed(x)
        h = self.rnn(h)[0][:, -1]
        if self.fault is not None:
            h = self.fault(h)
        h = self.head(h)
        return h if self.end is None else self.end(h)


class Attention(nn.Module):
    """Multi-head attention by hand; `scale` and `softmax` are where it goes wrong."""

    def __init__(
        self, width: int, heads: int, *, scale: float | None = None, causal: bool = True,
        softmax: Act = lambda s: s.softmax(-1),
    ) -> None:  # fmt: skip
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.out.weight)
        for part in self.qkv.weight.data.chunk(3):
            nn.init.xavier_uniform_(part)
        self.heads, self.causal, self.softmax = heads, causal, softmax
        self.scale = (width // heads) ** -0.5 if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * self.scale
        if self.causal:
            future = torch.ones(t, t, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        y = self.softmax(scores) @ v
        return self.out(y.transpose(1, 2).reshape(n, t, c))


class Layer(nn.Module):
    """A Pre-LN transformer block."""

    def __init__(self, width: int, heads: int, act: Act = F.gelu, **attention: object) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, **attention)  # type: ignore[arg-type]
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.fc2(self.act(self.fc1(self.ln2(x))))


class Gpt(nn.Module):
    """A character model: logits ``(N, T, K)``."""

    def __init__(
        self, vocabulary: int, width: int = 32, heads: int = 4, depth: int = 2, length: int = 64,
        **layer: object,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        nn.init.normal_(self.token.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.1)
        self.blocks = nn.ModuleList(Layer(width, heads, **layer) for _ in range(depth))  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.position(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Classifier(nn.Module):
    """A bidirectional text classifier on the mean of its positions."""

    def __init__(self, vocabulary: int, classes: int, end: Act | None = None, **body: object):
        super().__init__()
        self.body = Gpt(vocabulary, causal=False, **body)  # type: ignore[arg-type]
        self.body.head = nn.Identity()
        self.head = nn.Linear(self.body.norm.normalized_shape[0], classes)
        self.end = end

    def forward(self, ids: Tensor) -> Tensor:
        y = self.head(self.body(ids).mean(1))
        return y if self.end is None else self.end(y)


class Vae(nn.Module):
    """A variational autoencoder: returns reconstruction logits, mean and log-variance."""

    def __init__(self, noise: Callable[[Tensor], Tensor] = lambda v: torch.exp(0.5 * v)) -> None:
        super().__init__()
        self.encoder = nn.Linear(64, 48)
        self.mean, self.logvar = nn.Linear(48, 8), nn.Linear(48, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64))
        self.noise = noise

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.encoder(x))
        mean, logvar = self.mean(h), self.logvar(h)
        z = mean + self.noise(logvar) * torch.randn_like(mean)
        return self.decoder(z), mean, logvar


def elbo(outputs: Sequence[Tensor], target: Tensor, weight: float = 1.0) -> Tensor:
    """Reconstruction and Kullback-Leibler terms, per sample."""
    logits, mean, logvar = outputs
    rebuilt = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)
    return (rebuilt + weight * divergence).mean()


class Gcn(nn.Module):
    """Graph convolutions with a fixed adjacency."""

    def __init__(self, adjacency: Tensor, depth: int = 2, end: Act | None = None) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        sizes = [3] + [32] * (depth - 1) + [3]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(sizes))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = self.adjacency @ layer(x)
            if index < len(self.layers) - 1:
                x = F.relu(x)
        return x if self.end is None else self.end(x)
