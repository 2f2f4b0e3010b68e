"""Sealed and sick: one planted fault each, and the codes that name it, written down beforehand."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import (
    FtTransformer,
    ResNetOfTables,
    friedman,
    spirals,
    stack,
)
from tests.calibration.sealed_sequences import (
    K,
    Nbeats,
    Sage,
    SmallLm,
    classified,
    flat_ce,
    ring_of_cliques,
    seasonal,
    tones,
)
from tests.calibration.sealed_vision import Patches, PreActivation, Shuffle, Velocity, _v_prediction
from tests.zoo.recipes import digits, next_tokens, rows, unit_digits, waves

bench = Bench()
sick = bench.sick
CE = nn.CrossEntropyLoss()


def changed(model: nn.Module, change: Any) -> nn.Module:
    """Return `model` after `change` was done to it."""
    with torch.no_grad():
        change(model)
    return model


def linears(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv1d)]


def residual_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1),
        PreActivation(16, 16),
        PreActivation(16, 32, 2),
        nn.GroupNorm(4, 32),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


# -- initialization -----------------------------------------------------------------------

sick(
    "ft-transformer-std-two",
    "weights far too large",
    "GL101 GL104 GL105 GL106 GL107",
    lambda: changed(
        FtTransformer(),
        lambda m: [nn.init.normal_(p, std=2.0) for p in m.parameters() if p.ndim > 1],
    ),
    friedman,
    nn.MSELoss(),
    adamw(1e-3),
)
sick(
    "gelu-mlp-std-thousandth",
    "weights far too small",
    "GL101 GL103 GL301",
    lambda: changed(
        stack(64, 64, 64, 64, 64, 10, act=nn.GELU),
        lambda m: [nn.init.normal_(x.weight, std=1e-3) for x in linears(m)],
    ),
    rows("digits"),
    CE,
    sgd(0.05),
)
sick(
    "conv1d-ones",
    "identical units",
    "GL102",
    lambda: changed(
        nn.Sequential(
            nn.Conv1d(1, 16, 9, 4),
            nn.ReLU(),
            nn.Conv1d(16, 16, 9, 4),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        ),
        lambda m: [(nn.init.constant_(x.weight, 0.05), nn.init.zeros_(x.bias)) for x in linears(m)],
    ),
    tones,
    CE,
    adam(1e-3),
)
sick(
    "silu-head-zero-and-body-zero",
    "identical units",
    "GL102",
    lambda: changed(
        stack(10, 32, 32, 1, act=nn.SiLU), lambda m: [p.zero_() for p in m.parameters()]
    ),
    friedman,
    nn.MSELoss(),
    sgd(0.05),
)
sick(
    "sigmoid-of-twelve-layers",
    "vanishing gradient",
    "GL301 GL101 GL103",
    lambda: stack(10, *[48] * 12, 1, act=nn.Sigmoid),
    friedman,
    nn.MSELoss(),
    adam(),
)
sick(
    "softsign-thirty-layers-tiny",
    "vanishing gradient",
    "GL301 GL101 GL103",
    lambda: changed(
        stack(13, *[32] * 30, 3, act=nn.Softsign),
        lambda m: [nn.init.xavier_uniform_(x.weight, 0.5) for x in linears(m)],
    ),
    rows("wine"),
    CE,
    sgd(0.1),
)
sick(
    "gpt-lm-without-norms-and-twice-the-weights",
    "exploding forward",
    "GL104 GL105 GL106 GL101 GL302",
    lambda: changed(SmallLm(12), _no_norms),
    next_tokens(K),
    flat_ce,
    adamw(1e-3),
)


def _no_norms(model: Any) -> None:
    for block in model.blocks:
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
        for layer in linears(block):
            layer.weight *= 3
    model.norm = nn.Identity()


sick(
    "vit-scale-forgotten-large-query",
    "unscaled attention",
    "GL107 GL205",
    lambda: changed(
        Patches(),
        lambda m: [nn.init.normal_(b.attention.in_proj_weight, std=1.5) for b in m.blocks],
    ),
    digits(32),
    CE,
    adamw(1e-3),
)
sick(
    "groupnorm-gamma-hundredth",
    "normalization scale",
    "GL109 GL103 GL301",
    lambda: changed(
        nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 1, 1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        ),
        lambda m: [nn.init.constant_(x.weight, 0.01) for x in m if isinstance(x, nn.GroupNorm)],
    ),
    digits(32),
    CE,
    adam(),
)
sick(
    "dead-by-bias-in-tabular-resnet",
    "dead units",
    "GL201 GL111",
    lambda: changed(
        stack(10, 64, 64, 1, act=nn.ReLU),
        lambda m: [nn.init.constant_(m[i].bias, -6.0) for i in (0, 2)],
    ),
    friedman,
    nn.MSELoss(),
    adam(),
)
sick(
    "recurrent-cell-gain-three",
    "recurrent weights too large",
    "GL108 GL101 GL104 GL202 GL302",
    lambda: Recurrence(3.0),
    lambda: waves(32, 40),
    CE,
    adam(),
)


class Recurrence(nn.Module):
    """A tanh recurrence by hand whose recurrent weight has a gain."""

    def __init__(self, gain: float, detach: bool = False, act: Any = torch.tanh) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(1, 32), nn.Linear(32, 32)
        nn.init.orthogonal_(self.again.weight, gain)
        self.head = nn.Linear(32, 4)
        self.detach, self.act = detach, act

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 32)
        for t in range(x.shape[1]):
            h = self.act(self.first(x[:, t]) + self.again(h.detach() if self.detach else h))
        return self.head(h)


# -- data ---------------------------------------------------------------------------------


def raw(make: Any, scale: float, shift: float) -> Any:
    """Return `make` with its inputs on another scale."""

    def batch() -> Any:
        x, y = make()
        return x * scale + shift, y

    return batch


sick(
    "raw-bytes-into-patches",
    "inputs not normalized",
    "GL606",
    Patches,
    raw(digits(32), 60.0, 120.0),
    CE,
    adamw(1e-3),
)
sick(
    "audio-as-sixteen-bit-integers",
    "inputs not normalized",
    "GL606",
    lambda: nn.Sequential(
        nn.Conv1d(1, 16, 16, 4),
        nn.Tanh(),
        nn.Conv1d(16, 32, 8, 4),
        nn.Tanh(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    ),
    raw(tones, 12000.0, 0.0),
    CE,
    adam(),
)
sick(
    "n-beats-in-thousands",
    "inputs not normalized",
    "GL606 GL615",
    Nbeats,
    lambda: tuple(v * 800 + 4000 for v in seasonal()),
    nn.L1Loss(),
    adam(),
)
sick(
    "friedman-targets-in-ten-thousands",
    "targets not scaled",
    "GL615",
    lambda: stack(10, 64, 64, 1, act=nn.GELU),
    lambda: (lambda b: (b[0], b[1] * 9000 + 40000))(friedman()),
    nn.MSELoss(),
    adam(),
)
sick(
    "labels-shifted-by-one-vit",
    "labels out of range",
    "GL605",
    Patches,
    lambda: (lambda b: (b[0], b[1] + 1))(digits(32)()),
    CE,
    adamw(1e-3),
)
sick(
    "always-the-same-label",
    "one label only",
    "GL613",
    residual_cnn,
    lambda: (lambda b: (b[0], torch.full_like(b[1], 3)))(digits(32)()),
    CE,
    adam(),
)
sick(
    "nan-among-the-features",
    "not finite",
    "GL501",
    ResNetOfTables,
    lambda: (lambda b: (b[0].index_fill(1, torch.tensor([4]), float("nan")), b[1]))(friedman()),
    nn.MSELoss(),
    adam(),
)
sick(
    "log-of-zero-pixels",
    "not finite",
    "GL501",
    lambda: nn.Sequential(nn.Flatten(), stack(64, 64, 64, act=nn.ReLU)),
    lambda: (lambda x: (x.log(), x.flatten(1)))(unit_digits(32)()),
    nn.MSELoss(),
    adam(),
)
sick(
    "cosine-of-zero-vectors",
    "not finite",
    "GL501",
    lambda: nn.Sequential(nn.Linear(10, 16), Divide()),
    lambda: (torch.zeros(32, 10), torch.randn(32, 16)),
    nn.MSELoss(),
    adam(),
)


class Divide(nn.Module):
    """Divides by a norm over the batch's spread, which is zero where nothing varies."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0)


# -- losses -------------------------------------------------------------------------------

sick(
    "softmax-then-ce-graph",
    "doubled softmax",
    "GL601",
    lambda: nn.Sequential(Sage(ring_of_cliques()[0]), nn.Softmax(1)),
    lambda: ring_of_cliques()[1:],
    CE,
    adam(1e-2),
)
sick(
    "log-softmax-then-sigmoid-bce",
    "doubled softmax",
    "GL601",
    lambda: nn.Sequential(stack(2, 48, 48, 1, act=nn.ELU), nn.Sigmoid()),
    spirals,
    lambda o, t: F.binary_cross_entropy_with_logits(o[:, 0], t),
    adam(5e-3),
)
sick(
    "softmax-inside-lm",
    "doubled softmax",
    "GL601",
    lambda: nn.Sequential(SmallLm(2), nn.Softmax(-1)),
    next_tokens(K),
    flat_ce,
    adamw(3e-3),
)
sick(
    "nll-of-raw-scores-vit",
    "missing log-softmax",
    "GL602",
    Patches,
    digits(32),
    nn.NLLLoss(),
    adamw(1e-3),
)
sick(
    "sigmoid-for-standard-targets",
    "bounded output",
    "GL603",
    lambda: nn.Sequential(stack(10, 64, 1, act=nn.GELU), nn.Sigmoid()),
    friedman,
    nn.MSELoss(),
    adam(3e-3),
)
sick(
    "relu-forecast-of-signed-series",
    "bounded output",
    "GL603",
    lambda: nn.Sequential(stack(36, 48, 12, act=nn.SiLU), nn.ReLU()),
    seasonal,
    nn.L1Loss(),
    adam(3e-3),
)
sick(
    "column-against-row-n-beats",
    "targets broadcast",
    "GL605 GL808",
    lambda: stack(10, 48, 1, act=nn.GELU),
    lambda: (lambda b: (b[0], b[1][:, 0]))(friedman()),
    nn.SmoothL1Loss(),
    adam(3e-3),
)
sick(
    "eight-scores-for-ten-digits",
    "too few outputs",
    "GL604 GL605",
    lambda: nn.Sequential(nn.Flatten(), stack(64, 48, 8, act=nn.GELU)),
    digits(64),
    CE,
    adam(),
)
sick(
    "roberta-two-labels-for-four",
    "too few outputs",
    "GL604 GL605",
    lambda: hf.RobertaForSequenceClassification(
        hf.RobertaConfig(
            vocab_size=K,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=40,
            num_labels=2,
            pad_token_id=1,
        )
    ),
    lambda: classified() | {"labels": torch.arange(16) % 4},
    None,
    adamw(1e-3),
)
sick(
    "ascending-the-loss",
    "sign of the loss",
    "GL609",
    lambda: stack(64, 64, 10, act=nn.GELU),
    rows("digits"),
    lambda o, t: -F.cross_entropy(o, t),
    adam(3e-3),
)
sick(
    "loss-of-hard-decisions",
    "detached loss",
    "GL708",
    residual_cnn,
    digits(32),
    lambda o, t: (o.argmax(1) != t).float().mean(),
    adam(),
)
sick(
    "divergence-times-a-hundred",
    "one term outweighs",
    "GL614",
    lambda: Coder(),
    unit_digits(48),
    None,
    adam(1e-3),
    step=lambda m, x: m(x),
)


class Coder(nn.Module):
    """A variational autoencoder whose divergence was summed and its rebuilding averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = stack(64, 64, 16, act=nn.GELU), stack(8, 64, 64, act=nn.GELU)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        mean, logvar = self.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum()
        return F.mse_loss(self.decoder(z), x) + 100 * divergence


# -- graph and wiring ---------------------------------------------------------------------


class Cut(nn.Module):
    """What `inner` computes, through `cut`, into a head."""

    def __init__(self, inner: nn.Module, cut: Any, n: int, m: int) -> None:
        super().__init__()
        self.inner, self.head, self.cut = inner, nn.Linear(n, m), cut

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cut(self.inner(x)))


sick(
    "detached-features-silu",
    "graph cut",
    "GL701",
    lambda: Cut(stack(10, 48, 48, act=nn.SiLU), lambda h: h.detach(), 48, 1),
    friedman,
    nn.MSELoss(),
    adam(),
)
sick(
    "rounded-codes",
    "no derivative",
    "GL701 GL301",
    lambda: Cut(stack(13, 48, 24, act=nn.GELU), lambda h: (4 * h).round(), 24, 3),
    rows("wine"),
    CE,
    adam(),
)
sick(
    "no-grad-in-the-encoder-of-audio",
    "graph cut",
    "GL701",
    lambda: Cut(
        nn.Sequential(nn.Conv1d(1, 16, 16, 4), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten()),
        lambda h: torch.tensor(h.tolist()),
        64,
        4,
    ),
    tones,
    CE,
    adam(3e-3),
)


class Plain(nn.Module):
    """Experts in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(64, 3), nn.Linear(32, 10)
        self.experts = [nn.Linear(64, 32) for _ in range(3)]

    def forward(self, x: Tensor) -> Tensor:
        w = self.router(x).softmax(1)
        return self.head(sum(w[:, i : i + 1] * F.relu(e(x)) for i, e in enumerate(self.experts)))


sick("experts-in-a-list", "layers not registered", "GL709", Plain, rows("digits"), CE, adam(3e-3))
sick(
    "only-the-head-in-the-optimizer",
    "not in the optimizer",
    "GL702",
    Patches,
    digits(32),
    CE,
    lambda m: torch.optim.AdamW(m.head.parameters(), 3e-3),
)
sick(
    "optimizer-of-an-older-model",
    "foreign parameters",
    "GL703 GL702",
    FtTransformer,
    friedman,
    nn.MSELoss(),
    lambda m: torch.optim.AdamW(FtTransformer().parameters(), 3e-3),
)
sick(
    "left-in-eval",
    "trained in eval mode",
    "GL710",
    lambda: Evaluated(),
    digits(48),
    CE,
    sgd(0.05, momentum=0.9),
)


class Evaluated(nn.Module):
    """Puts its BatchNorm into eval mode at each call, as a helper for validation left it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(), Shuffle(24), Shuffle(24)
        )
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.body.eval()
        return self.head(self.body(x).mean((2, 3)))


sick(
    "two-linear-layers-in-a-row",
    "nothing non-linear",
    "GL112",
    lambda: stack(64, 64, 64, 10, act=nn.Identity),
    rows("digits"),
    CE,
    adam(2e-3),
)
sick(
    "scores-softmax-over-the-batch",
    "softmax axis",
    "GL113 GL608",
    lambda: PooledBy(0),
    next_tokens(K),
    lambda o, t: F.cross_entropy(o, t[:, -1]),
    adam(3e-3),
)


class PooledBy(nn.Module):
    """Pools positions with weights from a softmax over `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed, self.score, self.head = nn.Embedding(K, 32), nn.Linear(32, 1), nn.Linear(32, K)
        self.dim = dim

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        return self.head((self.score(h).softmax(self.dim) * h).sum(1))


sick(
    "batch-and-time-swapped",
    "samples mixed",
    "GL608",
    lambda: Swapped(),
    lambda: waves(24, 30),
    CE,
    adam(3e-3),
)


class Swapped(nn.Module):
    """A recurrence over the batch: the axis order of the other convention."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].mean(1))


sick(
    "lm-sees-the-future",
    "future seen",
    "GL612",
    lambda: SeesAhead(),
    next_tokens(K),
    flat_ce,
    adam(3e-3),
)


class SeesAhead(nn.Module):
    """A language model whose recurrence runs in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(K, 24)
        self.rnn = nn.LSTM(24, 24, batch_first=True, bidirectional=True)
        self.lm_head = nn.Linear(48, K)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.rnn(self.embed(ids))[0])


sick(
    "diffusion-time-only",
    "input ignored",
    "GL206 GL701 GL001",
    lambda: TimeOnly(),
    digits(32),
    None,
    adamw(2e-3),
    step=_v_prediction,
)


class TimeOnly(Velocity):
    """The noisy image is overwritten before it is used."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x), 0 * t)


# -- optimizers ---------------------------------------------------------------------------

sick(
    "adam-rate-of-three-vit", "learning rate too high", "GL401", Patches, digits(32), CE, adam(3.0)
)
sick(
    "momentum-rate-of-forty-swish",
    "learning rate too high",
    "GL401",
    lambda: stack(64, 64, 64, 10, act=nn.SiLU),
    rows("digits"),
    CE,
    sgd(40.0, momentum=0.9),
)
sick(
    "nadam-rate-of-1e-8",
    "learning rate too low",
    "GL402",
    ResNetOfTables,
    friedman,
    nn.MSELoss(),
    lambda m: torch.optim.NAdam(m.parameters(), 1e-8),
)
sick(
    "decay-of-twenty-lm",
    "weight decay",
    "GL408",
    lambda: SmallLm(2),
    next_tokens(K),
    flat_ce,
    adamw(5e-3, weight_decay=20.0),
)
sick(
    "batchnorm-of-two-samples",
    "small batch",
    "GL801",
    lambda: stack(10, 48, 48, 1, act=nn.ReLU, norm=nn.BatchNorm1d),
    lambda: friedman(2),
    nn.MSELoss(),
    adam(),
)
sick(
    "layernorm-of-the-one-score",
    "degenerate normalization",
    "GL809",
    lambda: nn.Sequential(stack(10, 48, 1, act=nn.GELU), nn.LayerNorm(1)),
    friedman,
    nn.MSELoss(),
    adam(3e-3),
)
sick(
    "dropout-of-ninety-seven-percent",
    "dropout rate",
    "GL804",
    lambda: nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Dropout(0.97), nn.Linear(128, 10)),
    rows("digits"),
    CE,
    adam(),
)
sick(
    "half-precision-products",
    "not finite",
    "GL501",
    lambda: Halves(),
    friedman,
    nn.MSELoss(),
    adam(),
)


class Halves(nn.Module):
    """Squares in sixteen bits what does not fit there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(10, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x * 300).half()
        return self.last((h * h).float().sqrt())


sick(
    "saturated-by-scores-times-forty",
    "saturated",
    "GL202 GL101 GL301",
    lambda: changed(
        stack(10, 48, 48, 48, 1, act=nn.Tanh), lambda m: [x.weight.mul_(40) for x in linears(m)]
    ),
    friedman,
    nn.MSELoss(),
    adam(),
)
sick(
    "graph-sum-of-all-neighbors-eight-deep",
    "exploding forward",
    "GL104 GL105",
    lambda: SumGraph(8),
    lambda: ring_of_cliques()[1:],
    CE,
    adam(1e-3),
)


class SumGraph(nn.Module):
    """Sums over neighbors, layer after layer, without a norm."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("a", ring_of_cliques()[0] + torch.eye(80))
        sizes = [4] + [32] * depth
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(sizes))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(self.a @ layer(x))
        return self.head(x)


sick(
    "branch-of-one-channel-added",
    "residual broadcast",
    "GL808",
    lambda: OneChannel(),
    digits(32),
    CE,
    adam(3e-3),
)


class OneChannel(nn.Module):
    """A branch that returns one channel, added to sixteen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(1, 16, 3, 1, 1), nn.Conv2d(16, 1, 3, 1, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        return self.head(F.relu(h + self.branch(h)).mean((2, 3)))


sick(
    "whole-trunk-frozen-by-mistake",
    "frozen",
    "GL712",
    lambda: changed(Patches(), _freeze),
    digits(32),
    CE,
    adamw(3e-3),
)


def _freeze(model: Any) -> None:
    for part in (model.patch, model.blocks):
        part.requires_grad_(False)
    model.place.requires_grad_(False)


sick(
    "half-of-the-parameters-twice",
    "listed twice",
    "GL711",
    lambda: stack(64, 64, 10, act=nn.GELU),
    rows("digits"),
    CE,
    lambda m: _twice(m),
)


def _twice(model: nn.Module) -> torch.optim.Optimizer:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = list(model.parameters())
        return torch.optim.SGD(own + own[:2], 0.05)
