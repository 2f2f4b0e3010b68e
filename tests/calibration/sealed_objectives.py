"""Sealed and sick: losses that get, weigh or average what they should not."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import friedman, stack
from tests.zoo.recipes import blobs, digits, next_tokens, rows, unit_digits, waves

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()

# -- outputs and what the loss makes of them ------------------------------------------------


def pendulum() -> tuple[Tensor, Tensor]:
    """Angles and speeds, and a controller's torques of up to two."""
    angle, speed = 6 * torch.rand(64) - 3, torch.randn(64)
    torque = (-2.5 * angle.sin() - 1.5 * speed).clamp(-2, 2)
    return torch.stack([angle.cos(), angle.sin(), speed], 1), torque[:, None]


sick(
    "policy-in-one-for-torques-of-two",
    "bounded output",
    "GL603",
    lambda: nn.Sequential(stack(3, 64, 64, 1, act=nn.ReLU), nn.Tanh()),
    pendulum,
    nn.MSELoss(),
    adam(3e-3),
)


class LogLink(nn.Module):
    """Forecasts through an exponential, as for counts."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1]).exp()


def next_returns() -> tuple[Tensor, Tensor]:
    """Waves, and their value at the next step: half of them are below zero."""
    x, _ = waves(48, 25)
    return x[:, :-1], x[:, -1]


sick(
    "signed-returns-through-an-exponential",
    "bounded output",
    "GL603",
    LogLink,
    next_returns,
    nn.MSELoss(),
    adam(5e-3),
)
sick(
    "softmax2d-before-pixelwise-ce",
    "doubled softmax",
    "GL601",
    lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 2, 1),
        nn.Softmax2d(),
    ),
    lambda: blobs(16),
    CE,
    adam(3e-3),
)


def tags() -> tuple[Tensor, Tensor]:
    """Digits, and of each whether it is even, below five, a multiple of three."""
    x, y = rows("digits", 64)()
    return x, torch.stack([y % 2 == 0, y < 5, y % 3 == 0], 1).float()


sick(
    "sigmoid-before-multilabel-soft-margin",
    "doubled sigmoid",
    "GL601",
    lambda: nn.Sequential(stack(64, 64, 3, act=nn.ReLU), nn.Sigmoid()),
    tags,
    nn.MultiLabelSoftMarginLoss(),
    adam(3e-3),
)


def dice(o: Tensor, t: Tensor) -> Tensor:
    o, t = o.flatten(1), t.flatten(1).float()
    return (1 - (2 * (o * t).sum(1) + 1) / (o.sum(1) + t.sum(1) + 1)).mean()


sick(
    "dice-of-raw-scores",
    "missing sigmoid",
    "GL602",
    lambda: nn.Sequential(
        nn.Conv2d(1, 16, 5, 1, 2),
        nn.LeakyReLU(),
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.LeakyReLU(),
        nn.Conv2d(16, 1, 1),
    ),
    lambda: blobs(16),
    dice,
    adam(3e-3),
)


def bandit() -> tuple[Tensor, Tensor, Tensor]:
    """Digits, a button pressed at random, and whether it was the digit's."""
    x, y = rows("digits", 64)()
    a = torch.where(torch.rand(64) < 0.5, y, torch.randint(10, (64,)))
    return x, a, (a == y).float() - 0.55


def policy_gradient(model: Any, batch: Any) -> Tensor:
    x, a, advantage = batch
    scores = model(x)
    return -(scores.gather(1, a[:, None]).squeeze(1) * advantage).mean()


sick(
    "policy-gradient-of-raw-scores",
    "missing log-softmax",
    "GL602",
    lambda: stack(64, 64, 10, act=nn.Tanh),
    bandit,
    None,
    adam(3e-3),
    step=policy_gradient,
)

# -- shapes -----------------------------------------------------------------------------------

sick(
    "ten-labels-against-ten-by-ten",
    "targets broadcast",
    "GL605",
    lambda: nn.Sequential(nn.Flatten(), stack(64, 48, 10, act=nn.ReLU)),
    lambda: (lambda b: (b[0], b[1].float()))(digits(10)()),
    nn.MSELoss(),
    adam(1e-3),
)


class Quality(nn.Module):
    """A critic of a state and an action."""

    def __init__(self) -> None:
        super().__init__()
        self.net = stack(5, 64, 64, 1, act=nn.ReLU)

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return self.net(torch.cat([s, a], 1))


def transitions() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """States, actions, and what followed, as a replay buffer stacks numbers."""
    s, a = torch.randn(64, 4), torch.rand(64, 1) * 2 - 1
    return (s, a), torch.sin(2 * s[:, 0]) - (a[:, 0] - 0.5 * s[:, 1]) ** 2


sick(
    "critic-column-against-rewards-of-a-buffer",
    "targets broadcast",
    "GL605",
    Quality,
    transitions,
    nn.HuberLoss(),
    adam(3e-3),
)


def half_labeled() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Wine of which a third has a label; the others say zero. And which do, as a column."""
    x, y = rows("wine", 64)()
    known = torch.rand(64, 1) < 0.35
    return x, (y.where(known[:, 0], torch.zeros_like(y)), known.float())


def of_the_labeled(o: Tensor, t: tuple[Tensor, Tensor]) -> Tensor:
    y, known = t
    loss = F.cross_entropy(o, y, reduction="none")
    return (loss * known).mean()


sick(
    "column-of-known-labels-times-a-row-of-losses",
    "mask broadcast",
    "GL605 GL808",
    lambda: stack(13, 48, 3, act=nn.GELU),
    half_labeled,
    of_the_labeled,
    adam(3e-3),
)


class TimeFirst(nn.Module):
    """A recurrence that returns its scores with time in front."""

    def __init__(self, k: int = 50) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(k, 32), nn.GRU(32, 48)
        self.head = nn.Linear(48, k)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids.T))[0])


sick(
    "scores-by-time-against-labels-by-sample",
    "labels of other positions",
    "GL608 GL609",
    TimeFirst,
    next_tokens(50, 12, 24),
    lambda o, t: F.cross_entropy(o.view(-1, 50), t.reshape(-1)),
    adam(5e-3),
)

# -- targets ----------------------------------------------------------------------------------


def survival() -> tuple[Tensor, Tensor]:
    """Features, and for each of six years: died, lived, or minus one where nobody knows."""
    x = torch.randn(64, 8)
    year = (3 + 1.5 * x[:, :1] - x[:, 1:2] + torch.randn(64, 1)).round()
    years = torch.arange(6)
    died = (years >= year).float()
    return x, died.masked_fill(years >= torch.randint(2, 7, (64, 1)), -1.0)


sick(
    "censored-years-as-minus-one",
    "targets out of range",
    "GL605",
    lambda: stack(8, 48, 6, act=nn.ReLU),
    survival,
    nn.BCEWithLogitsLoss(),
    adam(5e-3),
)


class Preference(nn.Module):
    """Scores two items, of which one is better."""

    def __init__(self) -> None:
        super().__init__()
        self.score = stack(12, 48, 1, act=nn.ReLU)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.score(a).squeeze(1), self.score(b).squeeze(1)


def pairs() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Pairs of items, and one where the first is better, else zero."""
    a, b = torch.randn(64, 12), torch.randn(64, 12)
    better = a[:, 0] + a[:, 1] * a[:, 2] > b[:, 0] + b[:, 1] * b[:, 2]
    return (a, b), better.float()


sick(
    "ranking-targets-of-zero-and-one",
    "targets out of range",
    "GL605",
    Preference,
    pairs,
    lambda o, t: F.margin_ranking_loss(o[0], o[1], t, margin=1.0),
    adam(3e-3),
)


def answers_cut_off() -> tuple[Tensor, Tensor]:
    """Prompts that fill the window: all labels are those of the prompt, which are ignored."""
    x, y = next_tokens(50)()
    return x, torch.full_like(y, -100)


sick(
    "every-label-is-ignored",
    "mean over nothing",
    "GL605 GL501",
    lambda: nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 50)),
    answers_cut_off,
    lambda o, t: F.cross_entropy(o.transpose(1, 2), t),
    adamw(1e-3),
)


def standardized_away() -> tuple[Tensor, Tensor]:
    """Targets from which the mean was taken along the axis of length one."""
    x, y = friedman()
    return x, y - y.mean(1, keepdim=True)


sick(
    "targets-centered-along-the-wrong-axis",
    "targets constant",
    "GL613",
    lambda: stack(10, 48, 1, act=nn.SiLU),
    standardized_away,
    nn.MSELoss(),
    adam(3e-3),
)


def three_measures() -> tuple[Tensor, Tensor]:
    """Length and width in meters, weight in grams."""
    x, _ = friedman()
    size = 0.5 + 0.2 * torch.stack([x[:, 0] * x[:, 1], x[:, 2]], 1).tanh()
    return x, torch.cat([size, 8000 * size[:, :1] + 500 * x[:, 3:4] + 3000], 1)


sick(
    "one-target-of-three-in-grams",
    "targets not scaled",
    "GL615",
    lambda: stack(10, 64, 64, 3, act=nn.ReLU),
    three_measures,
    nn.MSELoss(),
    adam(1e-3),
)


def shuffled_apart() -> tuple[Tensor, Tensor]:
    """Rows and labels, each in an order of its own."""
    x, y = rows("digits", 64)()
    return x[torch.randperm(64)], y[torch.randperm(64)]


sick(
    "rows-and-labels-shuffled-apart",
    "labels of other samples",
    "GL609 GL611",
    lambda: stack(64, 64, 10, act=nn.ReLU),
    shuffled_apart,
    CE,
    adam(3e-3),
)

# -- weights and averages -----------------------------------------------------------------------


class Finder(nn.Module):
    """A class and a box for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
        )
        self.kind, self.box = nn.Linear(64, 2), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.kind(h), self.box(h)


def found() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Squares, bright or dark, and their boxes in pixels of the photograph they come from."""
    x, masks = blobs(32)
    dark = torch.randint(2, (32,))
    top, left = masks.amax(2).float().argmax(1), masks.amax(1).float().argmax(1)
    boxes = torch.stack([left, top, left + 5, top + 5], 1) * 80.0
    return x * (1 - 2 * dark)[:, None, None, None], (dark, boxes)


def kind_and_box(o: Any, t: Any) -> Tensor:
    return F.cross_entropy(o[0], t[0]) + F.mse_loss(o[1], t[1])


sick(
    "boxes-in-pixels-beside-the-class",
    "one term outweighs",
    "GL614 GL615",
    Finder,
    found,
    kind_and_box,
    adam(1e-3),
)


def with_l1(model: Any, batch: Any) -> Tensor:
    x, y = batch
    penalty = sum(p.abs().sum() for p in model.parameters())
    return F.cross_entropy(model(x), y) + 1.0 * penalty


sick(
    "sum-of-absolute-weights-at-full-weight",
    "penalty outweighs",
    "GL614 GL408",
    lambda: stack(30, 64, 64, 2, act=nn.ReLU),
    rows("breast_cancer", 64),
    None,
    adam(3e-3),
    step=with_l1,
)
sick(
    "mean-divided-by-the-data-sets-size",
    "averaged twice",
    "GL402 GL105",
    lambda: stack(64, 64, 64, 10, act=nn.ReLU),
    rows("digits", 64),
    lambda o, t: F.cross_entropy(o, t) / 60000,
    sgd(0.05, momentum=0.9),
)
sick(
    "pixels-summed-at-the-rate-of-a-mean",
    "summed loss",
    "GL607 GL401",
    lambda: nn.Sequential(
        nn.Conv2d(1, 24, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(24, 2, 1),
    ),
    lambda: blobs(16),
    nn.CrossEntropyLoss(reduction="sum"),
    sgd(0.05),
)


class Directions(nn.Module):
    """Two views of a series as directions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = stack(24, 48, 16, act=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.net(x.flatten(1)), dim=1)


def angle_of_views(model: Any, x: Tensor) -> Tensor:
    """Let a view be near the other, and far from a neighbor's; some views were not changed."""
    changed = (torch.rand(len(x), 1, 1) < 0.7).float()
    z, other = model(x), model(x + 0.3 * changed * torch.randn_like(x))
    near = torch.acos((z * other).sum(1).clamp(-1, 1))
    far = torch.acos((z * other.roll(1, 0)).sum(1).clamp(-1, 1))
    return F.relu(near - far + math.pi / 4).mean()


sick(
    "angle-between-equal-views",
    "not finite",
    "GL501",
    Directions,
    lambda: waves()[0],
    None,
    adam(1e-3),
    step=angle_of_views,
)


def as_in_validation(model: Any, batch: Any) -> Tensor:
    x, y = batch
    with torch.no_grad():
        logits = model(x)
    return F.cross_entropy(logits, y)


sick(
    "forward-under-no-grad-as-in-validation",
    "detached loss",
    "GL708",
    lambda: nn.Sequential(nn.Flatten(), stack(64, 48, 10, act=nn.ReLU)),
    digits(32),
    None,
    adam(1e-3),
    step=as_in_validation,
)


class Blurred(nn.Module):
    """A denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 24, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(24, 24, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(24, 1, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def clean_and_smooth(o: Tensor, x: Tensor) -> Tensor:
    variation = o.diff(dim=2).pow(2).mean() + o.diff(dim=3).pow(2).mean()
    return F.mse_loss(o, x) + 1e5 * variation


sick(
    "total-variation-times-a-hundred-thousand",
    "penalty outweighs",
    "GL614",
    Blurred,
    lambda: (lambda x: (x + 0.2 * torch.randn_like(x), x))(unit_digits(32)()),
    clean_and_smooth,
    adam(2e-3),
)
