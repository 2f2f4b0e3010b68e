"""Input and target scales, flat activations, missing nonlinearities, inputs that are ignored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import sick_data as data
from tests.zoo.sick_hosts import (
    Classifier,
    Cnn,
    Dense,
    Gpt,
    Layer,
    Recurrent,
    deep_cnn,
    mlp,
)
from tests.zoo.sick_recipe import adam, sgd, sick

# Inputs not normalized.


def flat(batches):
    return [(x.flatten(1), y) for x, y in batches]


sick("raw-pixels-tanh-mlp", "GL606", lambda: mlp(64, 64, 64, 10, act=nn.Tanh),
     lambda: flat(data.raw_images()), optimizer=sgd())  # fmt: skip
sick("raw-pixels-cnn", "GL606", Cnn, data.raw_images, optimizer=sgd(0.01))
sick("raw-pixels-plain-deep-cnn", "GL606", lambda: deep_cnn(4, nn.ReLU), data.raw_images,
     optimizer=adam())  # fmt: skip


def incomes(batches=data.smooth):
    scale = torch.ones(12)
    scale[3], scale[7] = 5e4, 2e3
    return [(x * scale + 2 * scale, y) for x, y in batches()]


sick("columns-of-1e4", "GL606", lambda: mlp(12, 64, 64, 1), incomes, F.mse_loss,
     adam())  # fmt: skip
sick("one-column-of-1e6-functional", "GL606", lambda: Dense(12, 64, 64, 1),
     lambda: [(torch.cat([x[:, :11], 1e6 * x[:, 11:]], 1), y) for x, y in data.smooth()],
     F.mse_loss, adam())  # fmt: skip
sick("raw-wine-sgd", "GL606", lambda: mlp(13, 32, 3), data.wine, optimizer=sgd(0.05))
sick("inputs-of-1e-5", "GL606", lambda: mlp(64, 64, 10),
     lambda: [(1e-5 * x, y) for x, y in data.digits()])  # fmt: skip
sick("raw-series-lstm", "GL606", lambda: Recurrent(classes=3),
     lambda: [(1e3 * x + 5e3, y) for x, y in data.waves()], optimizer=adam(),
     because="prices of thousands into an LSTM saturate its gates")  # fmt: skip

sick("normalized-twice", "GL606", Cnn,
     lambda: [((x / 255 / 255 - 0.5) / 0.5, y) for x, y in data.raw_images()], optimizer=sgd(),
     because="all pixels are next to -1")  # fmt: skip
sick("divided-as-whole-numbers", "GL606 GL206", lambda: mlp(64, 64, 10),
     lambda: [(x // 256, y) for x, y in flat(data.raw_images())], optimizer=adam(),
     because="all pixels are zero")  # fmt: skip

# Targets not scaled.
sick("house-prices", "GL615", lambda: mlp(8, 64, 64, 1), data.houses, F.mse_loss, adam())
sick("house-prices-sgd", "GL615", lambda: Dense(8, 64, 64, 1), data.houses, F.mse_loss,
     sgd(0.01))  # fmt: skip
sick("house-prices-l1-functional", "GL615", lambda: Dense(8, 32, 1), data.houses, F.l1_loss,
     adam())  # fmt: skip
sick("raw-forecast-gru", "GL615", lambda: Recurrent(nn.GRU, classes=1),
     lambda: [(x, 5e3 + 800 * x[:, -1]) for x, _ in data.waves()], F.mse_loss,
     adam())  # fmt: skip
sick("raw-diabetes", "GL615", lambda: mlp(10, 64, 1), lambda: data.diabetes(True), F.mse_loss,
     adam())  # fmt: skip

# Outputs that cannot reach the targets.
sick("sigmoid-regression", "GL603", lambda: mlp(12, 64, 1, last=nn.Sigmoid()), data.smooth,
     F.mse_loss, adam())  # fmt: skip
sick("relu-regression-functional", "GL603", lambda: Dense(12, 64, 64, 1, last=F.relu),
     data.smooth, F.mse_loss, adam())  # fmt: skip
sick("relu-output-diabetes", "GL603", lambda: mlp(10, 32, 1, last=nn.ReLU()), data.diabetes,
     F.mse_loss, sgd(0.01))  # fmt: skip
sick("tanh-output-thirty", "GL603", lambda: Dense(12, 64, 1, last=torch.tanh),
     lambda: [(x, 15 + 8 * y) for x, y in data.smooth()], F.smooth_l1_loss, adam())  # fmt: skip
sick("softmax-regression", "GL603",
     lambda: mlp(12, 64, 3, last=nn.Softmax(dim=1)),
     lambda: [(x, torch.cat([y, 2 * y, -y], 1)) for x, y in data.smooth()], F.mse_loss,
     adam())  # fmt: skip
sick("clamped-output", "GL603", lambda: Dense(12, 64, 1, last=lambda y: y.clamp(0, 1)),
     data.smooth, F.mse_loss, adam())  # fmt: skip
sick("sigmoid-forecast-lstm", "GL603",
     lambda: Recurrent(classes=1, end=torch.sigmoid),
     lambda: [(x, 3 * x[:, -1]) for x, _ in data.waves()], F.mse_loss, adam())  # fmt: skip
sick("relu-decoder-standardized-images", "GL603",
     lambda: mlp(64, 32, 8, 32, 64, last=nn.ReLU()),
     lambda: [(x, x) for x, _ in data.digits()], F.mse_loss, adam())  # fmt: skip
sick("relu-on-logits", "GL603", lambda: mlp(64, 64, 10, last=nn.ReLU()), data.digits,
     optimizer=adam())  # fmt: skip
sick("tanh-on-logits", "GL603", lambda: Cnn(end=torch.tanh), data.images, optimizer=adam())

# Flat activations.
sick("clamp-inside", "GL202 GL301",
     lambda: Dense(64, 64, 64, 64, 10, act=lambda x: x.clamp(-0.003, 0.003)), data.digits,
     because="almost every pre-activation is outside the clamp")  # fmt: skip
sick("hardtanh-of-large-weights", "GL101 GL202",
     lambda: _scaled(mlp(64, 64, 64, 64, 10, act=nn.Hardtanh), 60.0), data.digits)  # fmt: skip
sick("round-in-the-middle", "GL301 GL701", lambda: Dense(64, 64, 64, 10, fault=torch.round),
     data.digits, optimizer=adam(),
     because="the derivative of round is zero: everything in front gets exactly nothing. GL701 "
     "was added after the first run: a gradient of exactly zero is missing, not "
     "shrunk")  # fmt: skip
sick("sign-network", "GL301 GL701", lambda: Dense(64, 64, 64, 10, act=torch.sign), data.digits,
     because="binarized without a straight-through estimator; GL701 as above")  # fmt: skip
sick("floor-in-cnn", "GL301 GL701", lambda: Cnn(fault=torch.floor), data.images, optimizer=adam(),
     because="as round-in-the-middle")  # fmt: skip


def _scaled(model: nn.Module, factor: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


# Nothing non-linear between two layers.
sick("linear-mlp", "GL112", lambda: mlp(64, 64, 64, 10, act=nn.Identity), data.digits,
     optimizer=adam())  # fmt: skip
sick("leaky-relu-true", "GL112",
     lambda: mlp(10, 32, 32, 1, act=lambda: nn.LeakyReLU(True)), data.binary,
     nn.BCEWithLogitsLoss(), adam(), because="True is taken for the slope")  # fmt: skip
sick("linear-functional", "GL112", lambda: Dense(12, 64, 64, 1, act=lambda x: x), data.smooth,
     F.mse_loss, adam())  # fmt: skip
sick("one-activation-forgotten-cnn", "GL112",
     lambda: nn.Sequential(
         nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
         nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
         nn.Linear(128, 10)), data.images, optimizer=adam())  # fmt: skip
sick("feed-forward-without-gelu", "GL112",
     lambda: Classifier(40, 4, act=lambda x: x), data.words, optimizer=adam())  # fmt: skip
sick("linear-autoencoder-wide", "GL112",
     lambda: mlp(64, 96, 96, 64, act=lambda: nn.Dropout(0.1)), data.unit_images, F.mse_loss,
     adam())  # fmt: skip

# The input does not matter.


class Overwrites(Cnn):
    """Forward draws its own input: a debugging line that stayed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.ones_like(x))


IGNORED = "GL206"
sick("input-times-zero", IGNORED, lambda: Dense(64, 64, 64, 10, at=0, fault=lambda x: 0 * x),
     data.digits, optimizer=adam())  # fmt: skip
sick("input-overwritten-cnn", IGNORED, Overwrites, data.images, optimizer=adam())


class OneToken(Classifier):
    """Every position looks up the same row."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(ids))


sick("embedding-of-one-index", IGNORED, lambda: OneToken(40, 4), data.words, optimizer=adam())


class Template(nn.Module):
    """Returns a learned template and forgets to add what it computed from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mlp(64, 32, 16)
        self.template = nn.Parameter(torch.randn(1, 16))
        self.decoder = mlp(16, 32, 64)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x)
        return self.decoder(self.template.expand(len(code), -1))


sick("code-forgotten-autoencoder", "GL206 GL701 GL001", Template, data.unit_images, F.mse_loss,
     adam(), because="the encoder runs and nothing uses it: told by the output, or by the "
     "missing gradient")  # fmt: skip


def _denoise(model: nn.Module, batch: Tensor) -> Tensor:
    x = batch[0]
    noise = torch.randn_like(x)
    return F.mse_loss(model(torch.zeros_like(x)), noise)


# GL606 says since that the input is nothing but zeros, which is the fault itself.
sick("denoiser-fed-zeros", f"{IGNORED} GL606", lambda: mlp(64, 96, 64), data.digits, None, adam(),
     step=_denoise)  # fmt: skip

# Axes.


class Pooled(nn.Module):
    """Attention pooling over positions; `dim` is where the softmax runs."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.score = nn.Linear(32, 1)
        self.head = nn.Linear(32, 4)
        self.dim = dim

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        return self.head((torch.softmax(self.score(h), self.dim) * h).sum(1))


sick("pooling-softmax-over-batch", "GL113 GL608", lambda: Pooled(0), data.words,
     optimizer=adam())  # fmt: skip
sick("pooling-softmax-over-one", "GL113", lambda: Pooled(2), data.words, optimizer=adam())
sick("attention-softmax-over-batch", "GL113 GL608",
     lambda: Classifier(40, 4, softmax=lambda s: s.softmax(0)), data.words,
     optimizer=adam())  # fmt: skip
sick("gate-softmax-over-batch-mlp", "GL113 GL608",
     lambda: Dense(64, 64, 64, 10, at=1, fault=lambda x: x * F.softmax(x, dim=0)), data.digits,
     optimizer=adam())  # fmt: skip


class MixedUp(nn.Module):
    """Heads split by a view where a transposition was meant."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.layer = Layer(32, 4, causal=False)
        self.head = nn.Linear(32, 4)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        n, t, c = h.shape
        h = self.layer(h.view(t, n, c)).view(t, n, c).transpose(0, 1)
        return self.head(h.mean(1))


sick("view-mixes-batch-transformer", "GL608", MixedUp, data.words, optimizer=adam())
sick("view-mixes-batch-mlp", "GL608",
     lambda: Dense(64, 64, 64, 10, fault=lambda x: x.t().reshape(x.shape)),
     lambda: data.digits(48), optimizer=adam(),
     because="with 64 samples of 64 pixels, as in the first run, no one can tell which axis is "
     "the batch: now 48")  # fmt: skip


class CharForCausalLM(Gpt):
    """A language model whose attention forgot the mask."""

    def __init__(self) -> None:
        super().__init__(len(data.LETTERS), causal=False)


sick("causal-mask-forgotten", "GL612", CharForCausalLM, data.characters,
     lambda o, t: F.cross_entropy(o.transpose(1, 2), t), adam(),
     because="the class says ForCausalLM")  # fmt: skip

# Residual shapes.


class Narrow(nn.Module):
    """A branch with one feature, added to sixty-four."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.branch, self.head = nn.Linear(64, 64), nn.Linear(64, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.fc1(x))
        return self.head(h + F.relu(self.branch(h)))


sick("residual-of-one-feature", "GL808", Narrow, data.digits, optimizer=adam())


class Wide(nn.Module):
    """Adds ``(N,)`` to ``(N, 1)``."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.wide = mlp(12, 32, 1), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(x) + self.wide(x).squeeze(-1)


sick("wide-and-deep-broadcast", "GL808 GL605", Wide, data.smooth, F.mse_loss, adam(),
     because="(N, 1) + (N): a table, then against targets (N, 1)")  # fmt: skip
