"""Sealed and sick: mixed-up axes, wrong masks, and inputs that do not get through."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw
from tests.zoo.recipes import digits, marked, next_tokens, unit_digits, waves

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()

# -- axes -----------------------------------------------------------------------------------


class AxisNotSaid(nn.Module):
    """Attention by hand; `nn.Softmax()` takes the first of three axes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(8, width), nn.Linear(width, 4)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.softmax = nn.Softmax()

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        scores = self.query(h) @ self.key(h).mT / h.shape[-1] ** 0.5
        return self.out((h + self.softmax(scores) @ self.value(h)).mean(1))


sick(
    "softmax-of-three-axes-without-a-dim",
    "softmax axis",
    "GL113 GL608",
    AxisNotSaid,
    marked,
    CE,
    adam(3e-3),
)


class OneScoreEach(nn.Module):
    """Pools a recurrence's states; each has one score, and the softmax runs over that one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 24, batch_first=True, bidirectional=True)
        self.project, self.score = nn.Linear(48, 24), nn.Linear(24, 1, bias=False)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.rnn(x)
        weights = F.softmax(self.score(torch.tanh(self.project(h))), dim=-1)
        return self.head((weights * h).sum(1))


sick(
    "softmax-over-the-one-score-of-a-state",
    "softmax over one",
    "GL113",
    OneScoreEach,
    marked,
    CE,
    adam(3e-3),
)


class TextLines(nn.Module):
    """Convolutions, then a recurrence over the columns, which a view was to bring to the front."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, (2, 1), 1), nn.ReLU())
        self.rnn, self.head = nn.LSTM(64, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        n, c, high, wide = h.shape
        h = h.view(wide, n, c * high)
        return self.head(self.rnn(h)[0][-1])


sick(
    "columns-brought-forward-by-a-view",
    "samples mixed",
    "GL608",
    TextLines,
    digits(32),
    CE,
    adam(5e-3),
)


class SetEncoder(nn.Module):
    """Batches first; the encoder layers were not told."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.enter(x)).mean(1))


sick(
    "encoder-layers-not-batch-first",
    "samples mixed",
    "GL608",
    SetEncoder,
    marked,
    CE,
    adam(2e-3),
)


class TwoInputs(nn.Module):
    """An image and a series are joined along the batch, and a view makes the shape fit."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.series = nn.Sequential(nn.Flatten(), nn.Linear(24, 32), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4))

    def forward(self, image: Tensor, series: Tensor) -> Tensor:
        both = torch.cat([self.image(image), self.series(series)], 0)
        return self.head(both.view(len(image), -1))


def two_inputs() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """A digit, a wave, and in which half of its range each of them is."""
    image, digit = digits(48)()
    series, wave = waves(48)
    return (image, series), 2 * (digit > 4) + (wave > 1)


sick(
    "two-inputs-joined-along-the-batch",
    "samples mixed",
    "GL608",
    TwoInputs,
    two_inputs,
    CE,
    adam(3e-3),
)


class CosineHead(nn.Module):
    """Features of unit length, but the length is taken over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
        self.centers = nn.Parameter(torch.randn(10, 32))

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(self.body(x), dim=0)
        return 16 * z @ F.normalize(self.centers, dim=1).T


sick(
    "features-normalized-over-the-batch",
    "normalization axis",
    "GL608",
    CosineHead,
    digits(48),
    CE,
    adam(1e-3),
)

# -- masks ------------------------------------------------------------------------------------


class MelodyForCausalLM(nn.Module):
    """The mask hides the past and the present, where the future was meant."""

    def __init__(self, k: int = 40, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(k, width), nn.Embedding(64, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.head = nn.Linear(width, k)

    def forward(self, ids: Tensor) -> Tensor:
        t = ids.shape[1]
        h = self.embed(ids) + self.place(torch.arange(t))
        scores = self.query(h) @ self.key(h).mT / h.shape[-1] ** 0.5
        hidden = torch.tril(torch.ones(t, t)) == 1
        h = h + scores.masked_fill(hidden, -1e9).softmax(-1) @ self.value(h)
        return self.head(h + self.feed(h)).transpose(1, 2)


sick(
    "causal-mask-the-wrong-way-round",
    "future seen",
    "GL612",
    MelodyForCausalLM,
    next_tokens(40),
    CE,
    adamw(3e-3),
)


class DilatedForCausalLM(nn.Module):
    """Dilated convolutions padded on both sides, where only the left was meant."""

    def __init__(self, k: int = 40, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(k, width)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding="same", dilation=2**i) for i in range(3)
        )
        self.head = nn.Conv1d(width, k, 1)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids).transpose(1, 2)
        for layer in self.layers:
            h = h + F.relu(layer(h))
        return self.head(h)


sick(
    "dilated-convolutions-padded-on-both-sides",
    "future seen",
    "GL612",
    DilatedForCausalLM,
    next_tokens(40),
    CE,
    adam(3e-3),
)


def padded_reviews() -> dict[str, Tensor]:
    """Padded token sequences; the mask marks the padding, where the model wants the opposite."""
    labels = torch.randint(2, (32,))
    ids = 3 + 2 * torch.randint(20, (32, 18)) + labels[:, None]
    padding = torch.arange(18) >= torch.randint(6, 16, (32, 1))
    ids = ids.masked_fill(padding, 0)
    ids[:, 0] = 1
    return {"input_ids": ids, "attention_mask": padding.long(), "labels": labels}


sick(
    "attention-mask-inverted",
    "mask inverted",
    "GL206",
    lambda: hf.ElectraForSequenceClassification(
        hf.ElectraConfig(
            vocab_size=50,
            embedding_size=32,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            num_labels=2,
        )
    ),
    padded_reviews,
    None,
    adamw(1e-3),
)


class SamplesNothing(nn.Module):
    """A variational autoencoder whose sample is the noise alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, 1)
        z = torch.randn_like(mean)
        return self.decoder(z), mean, logvar


def evidence(outputs: Any, x: Tensor) -> Tensor:
    logits, mean, logvar = outputs
    rebuilt = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
    return (rebuilt - 0.5 * (1 + logvar - mean**2 - logvar.exp()).sum()) / len(x)


sick(
    "latent-sample-without-its-mean",
    "input ignored",
    "GL206",
    SamplesNothing,
    lambda: (lambda x: (x, x))(unit_digits(48)()),
    evidence,
    adam(2e-3),
)
