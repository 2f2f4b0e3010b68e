"""Sealed and sick: loops that clear, step or hold the wrong thing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import digit_images, digits, table

bench = Bench()


def trainers(bench: Bench) -> Callable[..., Any]:
    """Return a decorator that adds a training loop to `bench`; its name is the case's."""

    def sick(fault: str, causes: str, model: Any, batch: Any, optimizer: Any = None) -> Any:
        def add(run: Any) -> Any:
            name = run.__name__.replace("_", "-")
            bench.sick(
                name, fault, causes, model, batch, None, optimizer, loop=run, in_loop=True
            )  # fmt: skip
            return run

        return add

    return sick


sick = trainers(bench)


# -- heartbeats, convolutions in time ----------------------------------------------------


def beats(size: int = 32, length: int = 96) -> tuple[Tensor, Tensor]:
    """Pulses at one of four rates, and which."""
    label = torch.randint(4, (size,))
    time = torch.linspace(0, 2 * math.pi, length)
    phase = 6.28 * torch.rand(size, 1)
    pulse = torch.exp(8 * (torch.cos((label[:, None] + 2) * time + phase) - 1))
    signal = pulse + 0.1 * torch.randn(size, length)
    return ((signal - 0.14) / 0.28).unsqueeze(1), label


def rhythm(width: int = 16) -> nn.Module:
    """Three strided convolutions with BatchNorm, as in many notebooks on heartbeats."""
    return nn.Sequential(
        nn.Conv1d(1, width, 7, 2, 3, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Conv1d(width, width, 5, 2, 2, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
        nn.Conv1d(width, 2 * width, 5, 2, 2, bias=False), nn.BatchNorm1d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(2 * width, 4),
    )  # fmt: skip


@sick("gradients not cleared", "GL704", rhythm, beats, sgd(0.05, momentum=0.9))
def cleared_once_an_epoch(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    model.train()
    for _ in range(steps // 10):
        optimizer.zero_grad()
        for _ in range(10):
            signal, label = draw()
            loss = F.cross_entropy(model(signal), label)
            loss.backward()
            optimizer.step()
            yield loss.item()


# -- sums spelled out, an encoder and a decoder with an optimizer each --------------------


def sums(size: int = 48) -> tuple[Tensor, Tensor]:
    """Two numbers below fifty, digit by digit, and their sum."""
    a, b = torch.randint(50, (2, size))
    c = a + b
    return torch.stack([a // 10, a % 10, b // 10, b % 10], 1), torch.stack([c // 10, c % 10], 1)


class Translator(nn.Module):
    """A recurrent encoder and decoder that begins from its state; token 10 starts."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(
            {"embed": nn.Embedding(11, 16), "rnn": nn.GRU(16, width, batch_first=True)}
        )
        self.decoder = nn.ModuleDict(
            {
                "embed": nn.Embedding(11, 16),
                "rnn": nn.GRU(16, width, batch_first=True),
                "out": nn.Linear(width, 10),
            }
        )

    def encode(self, source: Tensor) -> Tensor:
        return self.encoder["rnn"](self.encoder["embed"](source))[1]

    def decode(self, state: Tensor, target: Tensor) -> Tensor:
        seen = torch.cat([torch.full_like(target[:, :1], 10), target[:, :-1]], 1)
        hidden, _ = self.decoder["rnn"](self.decoder["embed"](seen), state)
        return self.decoder["out"](hidden).transpose(1, 2)


def encoder_and_decoder(model: Any) -> Any:
    return tuple(torch.optim.Adam(p.parameters(), 0.005) for p in (model.encoder, model.decoder))


@sick("gradients not cleared", "GL704", Translator, sums, encoder_and_decoder)
def only_the_encoder_is_cleared(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    encoder_optimizer, decoder_optimizer = optimizer
    for _ in range(steps):
        source, target = draw()
        encoder_optimizer.zero_grad()
        encoder_optimizer.zero_grad()
        loss = F.cross_entropy(model.decode(model.encode(source), target), target)
        loss.backward()
        encoder_optimizer.step()
        decoder_optimizer.step()
        yield loss.item()


# -- L-BFGS -------------------------------------------------------------------------------


@sick(
    "gradients not cleared",
    "GL704",
    lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1)),
    lambda: table("diabetes"),
    lambda m: torch.optim.LBFGS(m.parameters(), lr=0.5, max_iter=4),
)
def closure_that_never_clears(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    x, y = draw()

    def closure() -> Tensor:
        loss = F.mse_loss(model(x).squeeze(1), y)
        loss.backward()
        return loss

    for _ in range(steps):
        yield float(optimizer.step(closure))


# -- the lower half of a digit from the upper ---------------------------------------------


def halves(size: int = 64) -> tuple[Tensor, Tensor]:
    images = digit_images()[0]
    chosen = images[torch.randint(len(images), (size,))]
    return chosen[:, :, :4].flatten(1), chosen[:, :, 4:].flatten(1)


@sick(
    "cleared before the step",
    "GL705",
    lambda: nn.Sequential(
        nn.Linear(32, 96), nn.LayerNorm(96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(),
        nn.Linear(96, 32),
    ),
    halves,
    adamw(3e-3),
)  # fmt: skip
def lower_halves_cleared_too_early(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        upper, lower = draw()
        loss = F.mse_loss(model(upper), lower)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        yield loss.item()


# -- a sentence classifier from a small configuration -------------------------------------


def sentences(size: int = 8, length: int = 12) -> dict[str, Tensor]:
    """Token sequences where half of the tokens are of one of three kinds, and which."""
    label = torch.randint(3, (size,))
    own = 20 * label[:, None] + torch.randint(20, (size, length))
    other = torch.randint(60, (size, length))
    ids = torch.where(torch.rand(size, length) < 0.5, own, other)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": label}


def distilled() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=60, dim=48, n_layers=2, n_heads=4, hidden_dim=96,
            max_position_embeddings=16, num_labels=3,
        )
    )  # fmt: skip


@sick("cleared before the step", "GL705", distilled, sentences, adamw(1e-3))
def micro_batches_clear_each_other(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    model.train()
    for _ in range(steps):
        total = 0.0
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(**draw()).loss / 4
            loss.backward()
            total += loss.item()
        optimizer.step()
        yield total


# -- rings to segment ---------------------------------------------------------------------


def washers(size: int = 12, side: int = 24) -> tuple[Tensor, Tensor]:
    """Rings of some radius somewhere in noise, and their pixels."""
    center = side * (0.3 + 0.4 * torch.rand(size, 2, 1, 1))
    radius = 3 + 3 * torch.rand(size, 1, 1)
    axis = torch.arange(side, dtype=torch.float32)
    far = ((axis[:, None] - center[:, 0]) ** 2 + (axis - center[:, 1]) ** 2).sqrt()
    mask = ((far - radius).abs() < 1.5).float().unsqueeze(1)
    return mask - mask.mean() + 0.4 * torch.randn(size, 1, side, side), mask


class SmallUnet(nn.Module):
    """Down, across, up, with the finer features beside the coarser ones."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()

        def block(before: int, after: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )

        self.down = block(1, width)
        self.across = nn.Sequential(nn.MaxPool2d(2), block(width, 2 * width))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.last = nn.Sequential(block(2 * width, width), nn.Conv2d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        return self.last(torch.cat([fine, self.up(self.across(fine))], 1))


@sick("step outside the inner loop", "GL705 GL707", SmallUnet, washers, adam(3e-3))
def steps_once_an_epoch(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    for _ in range(steps // 20):
        model.train()
        for _ in range(20):
            image, mask = draw()
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(model(image), mask)
            loss.backward()
            yield loss.item()
        optimizer.step()


# -- a forecast by dilated convolutions ---------------------------------------------------


def demand(size: int = 32, length: int = 49) -> tuple[Tensor, Tensor]:
    """A daily and a weekly rhythm with noise, and the same an hour later."""
    time = torch.arange(length) + torch.randint(168, (size, 1))
    series = torch.sin(time * 0.2618) + 0.7 * torch.sin(time * 0.0374)
    series = series + 0.1 * torch.randn(size, length)
    return series[:, None, :-1], series[:, None, 1:]


class Causal(nn.Module):
    """Dilated convolutions that see the past only, with skips."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(4))
        self.last = nn.Conv1d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for i, layer in enumerate(self.layers):
            h = h + F.relu(layer(F.pad(h, (2**i, 0))))
        return self.last(h)


@sick("step never called", "GL707 GL705", Causal, demand, adam(3e-3))
def accumulates_longer_than_an_epoch(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    accumulate = 16
    for _ in range(steps // 10):
        optimizer.zero_grad()
        for i in range(10):
            past, future = draw()
            loss = F.l1_loss(model(past), future)
            (loss / accumulate).backward()
            if (i + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
            yield loss.item()


# -- recommendations ----------------------------------------------------------------------


def liked(size: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Users, an item of the kind each of them likes, and one of another kind."""
    user = torch.randint(60, (size,))
    item = user % 4 + 4 * torch.randint(20, (size,))
    return user, item, (item + torch.randint(1, 4, (size,))) % 80


class Tastes(nn.Module):
    """The product of a user's and an item's embedding, and how popular the item is."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(60, width), nn.Embedding(80, width)
        self.popular = nn.Embedding(80, 1)
        for table_ in (self.user, self.item, self.popular):
            nn.init.normal_(table_.weight, std=0.1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.user(user) * self.item(item)).sum(1) + self.popular(item).squeeze(1)


@sick("step never called", "GL707", Tastes, liked, adam(0.02))
def scheduler_steps_alone(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10 * steps)
    for _ in range(steps):
        user, item, other = draw()
        optimizer.zero_grad()
        loss = -F.logsigmoid(model(user, item) - model(user, other)).mean()
        loss.backward()
        scheduler.step()
        yield loss.item()


# -- an actor and a critic ----------------------------------------------------------------


def situations(size: int = 64) -> Tensor:
    return torch.randn(size, 6)


def actor_and_critic() -> nn.Module:
    return nn.ModuleDict(
        {
            "actor": nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4)),
            "critic": nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1)),
        }
    )


def reward_of(state: Tensor, action: Tensor) -> Tensor:
    """One for the action that names the largest of the first four numbers."""
    return (state[:, :4].argmax(1) == action).float()


def optimizers_of_both(model: Any) -> Any:
    return tuple(torch.optim.Adam(model[part].parameters(), 3e-3) for part in ("actor", "critic"))


@sick("step never called", "GL707", actor_and_critic, situations, optimizers_of_both)
def critic_steps_for_the_actor(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    actor_optimizer, critic_optimizer = optimizer
    for _ in range(steps):
        state = draw()
        policy = torch.distributions.Categorical(logits=model["actor"](state))
        action = policy.sample()
        reward = reward_of(state, action)
        value = model["critic"](state).squeeze(1)
        actor_loss = -(policy.log_prob(action) * (reward - value.detach())).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        critic_optimizer.step()
        critic_loss = F.mse_loss(model["critic"](state).squeeze(1), reward)
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        yield 1 - reward.mean().item()


# -- what the optimizer holds -------------------------------------------------------------


def arches(size: int = 64) -> tuple[Tensor, Tensor]:
    """Two values for every input, one on each branch of an arch."""
    x = 2 * torch.rand(size, 1) - 1
    side = 2 * torch.randint(2, (size, 1)).float() - 1
    return x, side * (1 - x**2).sqrt() + 0.05 * torch.randn(size, 1)


class MixtureDensity(nn.Module):
    """Weights, means and spreads of three normal distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.head = nn.Linear(48, 9)

    def forward(self, x: Tensor) -> Any:
        weight, mean, spread = self.head(self.body(x)).chunk(3, 1)
        parts = torch.distributions.Normal(mean, F.softplus(spread) + 0.01)
        return torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=weight), parts
        )


@sick(
    "optimizer of another model",
    "GL703 GL702",
    MixtureDensity,
    arches,
    lambda _: torch.optim.Adam(MixtureDensity().parameters(), 5e-3),
)
def optimizer_of_the_fold_before(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        x, y = draw()
        optimizer.zero_grad()
        loss = -model(x).log_prob(y.squeeze(1)).mean()
        loss.backward()
        optimizer.step()
        yield loss.item()


def pretrained_on_a_thousand() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=8, patch_size=2, num_channels=1, hidden_size=48, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=96, num_labels=1000,
        )
    )  # fmt: skip


def then_a_new_head(model: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.classifier = nn.Linear(48, 10)
    return optimizer


@sick(
    "layer replaced after the optimizer was built",
    "GL702 GL703",
    pretrained_on_a_thousand,
    digits(32),
    then_a_new_head,
)
def head_replaced_behind_the_optimizer(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    model.train()
    for _ in range(steps):
        x, y = draw()
        loss = F.cross_entropy(model(pixel_values=x).logits, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def spots(size: int = 24, side: int = 16) -> tuple[Tensor, Tensor]:
    """A bright spot in noise, and where it is, between -1 and 1."""
    where = 1.6 * torch.rand(size, 2) - 0.8
    axis = torch.linspace(-1, 1, side)
    far = (axis[:, None] - where[:, :1, None]) ** 2 + (axis - where[:, 1:, None]) ** 2
    return (4 * torch.exp(-far / 0.05) + 0.3 * torch.randn(size, side, side)).unsqueeze(1), where


class Locator(nn.Module):
    """Backbone, neck and head, each with its own rate."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 12, 3, 2, 1), nn.GroupNorm(3, 12), nn.SiLU(), nn.Conv2d(12, 16, 3, 2, 1)
        )
        self.neck = nn.Sequential(
            nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(256, 48), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(x)))


@sick(
    "part missing in the optimizer",
    "GL702",
    Locator,
    spots,
    lambda m: torch.optim.AdamW(
        [
            {"params": [p for n, p in m.named_parameters() if n.startswith("backbone")]},
            {"params": [p for n, p in m.named_parameters() if n.startswith("head")], "lr": 3e-3},
        ],
        lr=3e-4,
    ),
)
def neck_in_no_group(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.2, total_iters=5)
    for _ in range(steps):
        image, where = draw()
        loss = F.smooth_l1_loss(model(image), where)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warm.step()
        yield loss.item()
