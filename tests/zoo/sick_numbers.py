"""NaN, infinity, normalization over nothing, learning rates, decay, dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import sick_data as data
from tests.zoo.sick_hosts import (
    Attention,
    Classifier,
    Cnn,
    Dense,
    Gpt,
    Recurrent,
    UNet,
    Vae,
    elbo,
    mlp,
)
from tests.zoo.sick_recipe import adam, sgd, sick

NAN = float("nan")


def spoiled(batches, which: int, value: float = NAN):
    """The first batches with one bad entry in the inputs or in the targets."""
    result = []
    for batch in batches:
        parts = [t.clone() for t in batch]
        parts[which].view(-1)[7] = value
        result.append(tuple(parts))
    return result


sick("nan-in-data", "GL501", lambda: mlp(64, 64, 10), lambda: spoiled(data.digits(), 0),
     optimizer=adam())  # fmt: skip
sick("inf-in-series", "GL501", lambda: Recurrent(classes=3),
     lambda: spoiled(data.waves(), 0, float("inf")), optimizer=adam())  # fmt: skip
sick("nan-in-targets", "GL501", lambda: Dense(12, 64, 1), lambda: spoiled(data.smooth(), 1),
     F.mse_loss, adam())  # fmt: skip


def _broken_weight() -> nn.Module:
    model = Cnn()
    with torch.no_grad():
        model.conv2.weight[3, 2, 1, 1] = NAN
    return model


sick("nan-in-weights", "GL501", _broken_weight, data.images, optimizer=adam())
sick("log-of-zero", "GL501",
     lambda: Dense(64, 64, 64, 10, at=2, fault=torch.log), data.digits, optimizer=adam(),
     because="log behind a ReLU")  # fmt: skip
sick("log-of-zero-in-loss", "GL501", lambda: mlp(64, 64, 10, last=nn.ReLU()), data.digits,
     lambda o, t: -(torch.log(o / o.sum(1, keepdim=True))[range(len(t)), t]).mean(), adam(),
     because="a cross-entropy by hand over ReLU'd scores")  # fmt: skip


def distances(o: Tensor, t: Tensor) -> Tensor:
    """A metric loss over all pairs; every sample is at distance 0 from itself."""
    apart = torch.sqrt(((o[:, None] - o[None]) ** 2).sum(-1))
    return ((apart - (t[:, None] != t[None]).float()) ** 2).mean()


sick("sqrt-at-zero", "GL501", lambda: mlp(64, 64, 8), data.digits, distances, adam(),
     because="√ at 0: ∞·0. Planted otherwise after the first run: it stood behind a ReLU, which "
     "masks the ∞, and trained well")  # fmt: skip
sick("zero-std-column", "GL501",
     lambda: Dense(12, 64, 1, at=0, fault=lambda x: (x - x.mean(0)) / x.std(0)),
     lambda: [(torch.cat([x[:, :11], torch.ones_like(y)], 1), y) for x, y in data.smooth()],
     F.mse_loss, adam(), because="a constant column standardized by itself: 0/0")  # fmt: skip
sick("exp-overflow-vae", "GL501",
     lambda: Vae(lambda v: torch.exp(200 + 0.5 * v)), data.unit_images, elbo,
     adam())  # fmt: skip
sick("fully-masked-attention", "GL501",
     lambda: Classifier(40, 4, softmax=lambda s: s.masked_fill(
         torch.ones(s.shape[-1], dtype=torch.bool), float("-inf")).softmax(-1)),
     data.words, optimizer=adam())  # fmt: skip
sick("half-precision-overflow", "GL501",
     lambda: Dense(64, 64, 64, 10, at=1, fault=lambda x: 3e4 * x), data.digits, optimizer=adam(),
     precision="fp16")  # fmt: skip
sick("power-of-negative", "GL501",
     lambda: Dense(12, 64, 64, 1, act=torch.tanh, at=1, fault=lambda x: x**0.5), data.smooth,
     F.mse_loss, adam())  # fmt: skip

# Normalization over nothing.


class Squeezed(nn.Module):
    """A normalization on the pooled vector of a CNN."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, padding=1)
        self.norm = norm
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1)
        return self.fc(torch.flatten(F.relu(self.norm(h)), 1))


sick("batchnorm-batch-of-one", "GL801",
     lambda: nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)),
     lambda: data.digits(1), optimizer=adam())  # fmt: skip
sick("batchnorm-batch-of-two", "GL801", lambda: Squeezed(nn.BatchNorm2d(32)),
     lambda: data.images(2), optimizer=adam())  # fmt: skip
sick("layernorm-of-one-feature", "GL809",
     lambda: nn.Sequential(mlp(12, 64, 1), nn.LayerNorm(1), nn.Linear(1, 32), nn.ReLU(),
                           nn.Linear(32, 1)), data.smooth, F.mse_loss, adam())  # fmt: skip
sick("instancenorm-on-one-pixel", "GL809", lambda: Squeezed(nn.InstanceNorm2d(32)), data.images,
     optimizer=adam())  # fmt: skip
sick("groupnorm-one-channel-groups", "GL809", lambda: Squeezed(nn.GroupNorm(32, 32)),
     data.images, optimizer=adam())  # fmt: skip


class StepNorm(nn.Module):
    """A recurrent cell with one BatchNorm for all time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, 32)
        self.norm = nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 32)
        for t in range(x.shape[1]):
            h = self.norm(self.cell(x[:, t], h))
        return self.head(h)


sick("batchnorm-in-recurrence", "GL802", StepNorm, data.waves, optimizer=adam())
sick("bias-before-batchnorm", "GL805",
     lambda: nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
                           nn.Linear(576, 10)), data.images, optimizer=adam())  # fmt: skip

# Learning rates.
sick("adam-rate-of-one-transformer", "GL401", lambda: Classifier(40, 4), data.words,
     optimizer=adam(1.0))  # fmt: skip
sick("sgd-rate-of-100", "GL401", lambda: mlp(64, 64, 64, 10), data.digits,
     optimizer=sgd(100.0))  # fmt: skip
sick("rmsprop-rate-of-half-cnn", "GL401", Cnn, data.images,
     optimizer=lambda m: torch.optim.RMSprop(m.parameters(), 0.5))  # fmt: skip
sick("adam-rate-of-thirty-unet", "GL401", UNet, data.masks, F.binary_cross_entropy_with_logits,
     adam(30.0),
     because="BatchNorm forgives a rate of one, as in the first run: under one seed of three the "
     "loss halved")  # fmt: skip
sick("sgd-rate-of-50-tanh-iris", "GL401", lambda: mlp(4, 16, 16, 3, act=nn.Tanh), data.iris,
     optimizer=sgd(50.0))  # fmt: skip
sick("adam-rate-of-1e-9", "GL402", lambda: mlp(64, 64, 10), data.digits, optimizer=adam(1e-9))
sick("sgd-rate-of-1e-8-cnn", "GL402", Cnn, data.images, optimizer=sgd(1e-8))
sick("sgd-rate-of-1e-8-language-model", "GL402", lambda: Gpt(len(data.LETTERS)), data.characters,
     lambda o, t: F.cross_entropy(o.transpose(1, 2), t), sgd(1e-8))  # fmt: skip
sick("weight-decay-of-five", "GL408", lambda: mlp(64, 64, 64, 10), data.digits,
     optimizer=sgd(0.1, weight_decay=5.0))  # fmt: skip
sick("adamw-decay-of-fifty", "GL408", Cnn, data.images,
     optimizer=lambda m: torch.optim.AdamW(m.parameters(), 5e-3, weight_decay=50.0))  # fmt: skip

# Dropout.


class Dropping(Cnn):
    """Dropout at a place and a rate of one's own."""

    def __init__(self, rate: float, last: bool = False) -> None:
        super().__init__()
        self.drop, self.late = nn.Dropout(rate), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = torch.flatten(self.pool(F.relu(self.conv2(x))), 1)
        return self.drop(self.fc(x)) if self.late else self.fc(self.drop(x))


sick("dropout-of-0.95", "GL804", lambda: Dropping(0.95), data.images, optimizer=adam())
sick("dropout-of-one", "GL804", lambda: Dropping(1.0), data.images, optimizer=adam())
sick("dropout-on-logits", "GL804", lambda: Dropping(0.3, last=True), data.images,
     optimizer=adam())  # fmt: skip
sick("dropout-before-batchnorm", "GL803",
     lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.4),
                           nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
                           nn.Linear(64, 10)), data.digits, optimizer=adam())  # fmt: skip

# Terms of a loss.
sick("divergence-weighted-a-million", "GL614", Vae, data.unit_images,
     lambda o, t: elbo(o, t, 1e6), adam())  # fmt: skip


class Sharp(nn.Module):
    """Scores multiplied by a thousand before the softmax of an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.attention = Attention(32, 2, causal=False, scale=1e3)
        self.head = nn.Linear(32, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.attention(self.embed(ids)).mean(1))


sick("attention-multiplied-instead-of-divided", "GL107 GL205", Sharp, data.words,
     optimizer=adam())  # fmt: skip
