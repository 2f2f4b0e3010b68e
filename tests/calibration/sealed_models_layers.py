"""Sealed and sick: layers that do something else than their author meant."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw
from tests.calibration.sealed_models import circles
from tests.zoo.recipes import rows, waves

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()


def slopes(size: int = 32, length: int = 33) -> tuple[Tensor, Tensor]:
    """Waves with the channel first, and how they rise at each step."""
    x, _ = waves(size, length + 2)
    x = x.transpose(1, 2)
    return x[..., 1:-1], x[..., 2:] - x[..., :-2]


def faint(size: int = 48, length: int = 20) -> tuple[Tensor, Tensor]:
    """Sets of noisy vectors that all lean a little to one of four sides, and which."""
    y = torch.randint(4, (size,))
    return torch.randn(size, length, 8) + F.one_hot(y, 8)[:, None], y


def diabetes_column() -> tuple[Tensor, Tensor]:
    x, y = rows("diabetes", 64)()
    return x, y[:, None]


class SummaryToken(nn.Module):
    """A learned query reads a set; the scores keep the size that their width gives them."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(8, width), nn.LayerNorm(width)
        self.summary = nn.Parameter(torch.randn(1, 1, width))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.enter(x))
        scores = self.query(self.summary) @ self.key(h).transpose(1, 2)
        return self.head((scores.softmax(-1) @ self.value(h)).squeeze(1))


sick(
    "summary-token-with-undivided-scores",
    "unscaled attention",
    "GL107 GL205",
    SummaryToken,
    faint,
    CE,
    adam(1e-3),
)


class DeepSeries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 32, num_layers=8, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


sick(
    "eight-stacked-lstms",
    "vanishing through depth",
    "GL301 GL103 GL101",
    DeepSeries,
    lambda: waves(64, 16),
    CE,
    adam(1e-2),
)


class Unpadded(nn.Module):
    """The branch lost its padding: what is left of it is one step long, and is added to all."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, width, 1)
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv1d(width, width, 9), nn.GELU()]
        self.branch, self.head = nn.Sequential(*layers), nn.Conv1d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = h + self.branch(h)
        return self.head(h)


sick(
    "branch-without-padding",
    "residual broadcast",
    "GL808",
    Unpadded,
    slopes,
    nn.MSELoss(),
    adam(3e-3),
)


class ThrownAway(nn.Module):
    """Calls the activation and keeps what went in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 96), nn.Linear(96, 96)
        self.last = nn.Linear(96, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        F.relu(x)
        x = self.second(x)
        F.relu(x)
        return self.last(x)


sick(
    "activation-called-and-thrown-away",
    "nothing non-linear",
    "GL112",
    ThrownAway,
    circles,
    CE,
    adam(3e-3),
)
sick(
    "dropout-behind-the-last-layer",
    "dropout on the outputs",
    "GL804",
    lambda: nn.Sequential(
        nn.Linear(10, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
        nn.Dropout(0.5),
    ),
    diabetes_column,
    nn.MSELoss(),
    adam(3e-3),
)


def tokens_of_two_kinds() -> dict[str, Tensor]:
    """Token sequences, each with more of one half of the vocabulary; and which half."""
    labels = torch.randint(2, (32,))
    own = torch.rand(32, 20) < 0.75
    side = torch.where(own, labels[:, None], 1 - labels[:, None])
    return {"input_ids": 2 + 24 * side + torch.randint(24, (32, 20)), "labels": labels}


sick(
    "probability-to-keep-given-to-fnet",
    "dropout rate",
    "GL804",
    lambda: hf.FNetForSequenceClassification(
        hf.FNetConfig(
            vocab_size=50,
            hidden_size=48,
            num_hidden_layers=2,
            intermediate_size=96,
            max_position_embeddings=32,
            type_vocab_size=1,
            hidden_dropout_prob=0.9,
            num_labels=2,
        )
    ),
    tokens_of_two_kinds,
    None,
    adamw(3e-3),
)


class Bounded(torch.autograd.Function):
    """Clamps to [-1, 1]; the backward pass has the condition the wrong way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() > 1)


class HardTanh(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return Bounded.apply(x)


sick(
    "own-clamp-with-its-derivative-inverted",
    "wrong derivative",
    "GL503",
    lambda: nn.Sequential(
        nn.Linear(13, 48), HardTanh(), nn.Linear(48, 48), HardTanh(), nn.Linear(48, 3)
    ),
    rows("wine", 64),
    CE,
    adam(3e-3),
)
